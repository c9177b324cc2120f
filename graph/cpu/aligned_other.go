//go:build !linux

package cpu

func wantHugePages([]float32) {}

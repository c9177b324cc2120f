//go:build !linux

package main

import "errors"

const canLimitFiles = false

func limitFiles(string) error { return errors.New("files are limited on Linux only") }

// Package arch tests the architecture: which package may import which.
package arch

// Package arch holds the house's rules: its test checks who imports whom.
package arch

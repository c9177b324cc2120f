#!/usr/bin/env bash
# Reports mistakes that vet does not find, and functions that neither the program nor a test reaches.
set -euo pipefail
cd "$(dirname "$0")/.."
go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...
dead=$(go run golang.org/x/tools/cmd/deadcode@v0.52.0 -test ./...)
if [ -n "$dead" ]; then
	printf 'nothing calls these:\n%s\n' "$dead"
	exit 1
fi

# What people type often. `make` alone lists it.
.PHONY: help build test lint generate bench quickstart

help:
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

build: ## build ./sambatrain
	CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' ./cmd/sambatrain

test: ## run all tests
	go test ./...

lint: ## format, vet, staticcheck and deadcode
	gofmt -l -w cmd graph layers optim data checkpoint recipes internal scripts
	go vet ./...
	scripts/lint.sh

generate: ## write the assembly again from its generators
	go generate ./graph/cpu/simd

bench: ## time the quickstart's step on this machine
	go run ./cmd/sambatrain bench

quickstart: ## train the quickstart
	go run ./cmd/sambatrain pretrain recipes/quickstart.yaml

# davit: what people do with this tree. `make help` lists it.

PREFIX ?= /usr/local
DESTDIR ?=
CARGO ?= cargo
# Failpoints are compiled in for tests only; release builds have none.
TEST_FEATURES := davitd/failpoints,davit-shim/failpoints

.DEFAULT_GOAL := help
.PHONY: help deps deps-test build run test lint bench install doc clean

help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

deps: ## Install what `make run` needs from Debian (root)
	@.ci/deps run

deps-test: ## Install what `make test` needs from Debian (root)
	@.ci/deps test

build: ## Build release binaries
	$(CARGO) build --release --workspace --bins

run: deps build ## Build, start davitd, run containers for real, show it (KEEP=1 leaves it running)
	@.ci/demo

test: deps-test ## Build and run every test
	$(CARGO) build --workspace --bins --features $(TEST_FEATURES)
	$(CARGO) test --workspace --features $(TEST_FEATURES)

lint: ## Formatting and clippy
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --features $(TEST_FEATURES) -- -D warnings

bench: deps-test build ## Measure davit against its peers and print the ratios
	@.ci/bench

doc: ## Write docs/api.md from the comments of the .proto files
	$(CARGO) run -q -p davit-tests --bin api-reference

install: build ## Install binaries, shim and systemd unit below DESTDIR/PREFIX
	install -D -m 0755 target/release/davitd $(DESTDIR)$(PREFIX)/bin/davitd
	install -D -m 0755 target/release/davit $(DESTDIR)$(PREFIX)/bin/davit
	install -D -m 0755 target/release/davit-gateway $(DESTDIR)$(PREFIX)/bin/davit-gateway
	install -D -m 0755 target/release/containerd-shim-davit-v2 $(DESTDIR)$(PREFIX)/bin/containerd-shim-davit-v2
	install -d $(DESTDIR)/etc/systemd/system
	sed 's#@PREFIX@#$(PREFIX)#' docs/davitd.service > $(DESTDIR)/etc/systemd/system/davitd.service

clean: ## Remove what was built
	$(CARGO) clean

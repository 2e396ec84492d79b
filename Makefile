# SPDX-License-Identifier: Apache-2.0 OR MIT
# The few commands that a person types; `make` alone lists them. Everything that is missing is installed or built on the way.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.NOTPARALLEL:
# The lines of a recipe are one script.
.ONESHELL:
.DEFAULT_GOAL := help

PREFIX ?= /usr/local
CARGO ?= cargo
target := $(or $(CARGO_TARGET_DIR),target)
release := $(target)/release
packages := tests/install-packages.sh

# $(call update,FROM,TO): by a rename, for a machine may be starting from TO; and only if it changed.
update = cmp -s $(1) $(2) || { cp $(1) $(2).new && mv -f $(2).new $(2); }

.PHONY: help
help:
	@echo 'make build             the binary $(release)/coracle; guest kernel and PID 1 beside it'
	@echo 'make images            the test images; `make -s images` prints the folder that they are in'
	@echo 'make run               runs one of them as a microVM'
	@echo 'make test              every test, with the binary, the kernel and the images that were just built'
	@echo 'make bench             times and memory, as medians'
	@echo 'make check             formatting, lints, sizes, licences'
	@echo 'make install PREFIX=   to PREFIX/bin and PREFIX/share/coracle (PREFIX is $(PREFIX), DESTDIR is honoured)'
	@echo 'make clean             removes what was built here; kernels and images stay in ~/.cache/coracle'

.PHONY: build
build: binary init kernel

.PHONY: binary
binary:
	@$(packages) build
	$(CARGO) build --release --package vmm

.PHONY: init
init:
	@$(packages) build
	$(CARGO) build --package guest-init --bin coracle-init --profile init --features pid1
	@mkdir -p $(release)
	@$(call update,$(target)/init/coracle-init,$(release)/coracle-init)

.PHONY: kernel
kernel:
	@mkdir -p $(release)
	@vmlinux=$$(guest-kernel-config/build.sh | tail -n 1)
	$(call update,$$vmlinux,$(release)/vmlinux)
	$(call update,$${vmlinux%/*}/System.map,$(release)/System.map)

.PHONY: images
images:
	@tests/images/build.sh

.PHONY: run
run: build
	@$(packages) run
	@images=$$(tests/images/build.sh | tail -n 1)
	$(release)/coracle run --timings "oci:$$images/python"

.PHONY: test
test: build
	@$(packages) run tests
	@images=$$(tests/images/build.sh | tail -n 1)
	CORACLE_IMAGES=$$images $(CARGO) xtask test

.PHONY: bench
bench: build
	@$(packages) run tests
	@images=$$(tests/images/build.sh | tail -n 1)
	CORACLE_IMAGES=$$images $(CARGO) xtask bench

.PHONY: check
check:
	@$(packages) build tests
	$(CARGO) xtask check

.PHONY: install
install: build
	install -D -m 755 $(release)/coracle $(DESTDIR)$(PREFIX)/bin/coracle
	install -D -m 644 $(release)/vmlinux $(DESTDIR)$(PREFIX)/share/coracle/vmlinux
	install -D -m 755 $(release)/coracle-init $(DESTDIR)$(PREFIX)/share/coracle/coracle-init

.PHONY: clean
clean:
	$(CARGO) clean

# SPDX-License-Identifier: Apache-2.0 OR MIT
# The few commands that a person types. What they need and Debian has is installed on the way
# (guest-kernel-config/packages.sh); a Rust toolchain has to be there.

PREFIX ?= /usr/local
# A failure before a pipe's end is one.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
# Cargo, kernel and images each use every processor by themselves.
.NOTPARALLEL:
release := $(or $(CARGO_TARGET_DIR),target)/release
profile_init := $(or $(CARGO_TARGET_DIR),target)/init
packages := guest-kernel-config/packages.sh

.PHONY: help build kernel init cargo images run test bench check install clean

help: ## what there is (this)
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' Makefile

build: kernel init ## coracle, its guest kernel and its PID 1, in target/release
	cargo build --release --package vmm

# The last line that build.sh prints is the path of the kernel. System.map names what a profile of the guest finds.
kernel:
	kernel=$$(guest-kernel-config/build.sh | tail -n 1) && \
	install -C -D -m 644 "$$kernel" $(release)/vmlinux && \
	install -C -m 644 "$${kernel%/*}/System.map" $(release)/System.map

init: cargo
	cargo build --package guest-init --bin coracle-init --profile init
	install -C -D -m 755 $(profile_init)/coracle-init $(release)/coracle-init

cargo:
	@command -v cargo > /dev/null || { echo 'make: there is no cargo; https://rustup.rs has it' >&2; exit 1; }
	@$(packages) build run

images: ## the test images; prints their folder as its last line
	@tests/images/build.sh

run: build ## a Python image in a microVM, and how long each stage of its start took
	@images=$$(tests/images/build.sh | tail -n 1) && \
	$(release)/coracle run --timings "oci:$$images/python"; \
	status=$$?; echo "exit status $$status"; exit $$status

test: build ## unit tests, then the real binary with real images, on this machine's KVM and on a nested one
	@$(packages) tests nested
	@images=$$(tests/images/build.sh | tail -n 1) && CORACLE_IMAGES=$$images cargo xtask test

bench: build ## side by side with QEMU's microvm machine, in the nested world: medians and ratios
	@$(packages) tests nested
	@images=$$(tests/images/build.sh | tail -n 1) && CORACLE_IMAGES=$$images cargo xtask bench

check: cargo ## format, lints, sizes, licences, unit tests
	@$(packages) tests
	cargo xtask check

# As root there may be no cargo: then what was built is installed.
install: $(if $(shell command -v cargo),build) ## to PREFIX (/usr/local): bin/coracle, share/coracle/{vmlinux,coracle-init}
	install -D -m 755 $(release)/coracle $(DESTDIR)$(PREFIX)/bin/coracle
	install -D -m 644 $(release)/vmlinux $(DESTDIR)$(PREFIX)/share/coracle/vmlinux
	install -D -m 755 $(release)/coracle-init $(DESTDIR)$(PREFIX)/share/coracle/coracle-init

clean: ## what was built here; kernels and images stay in ~/.cache/coracle
	cargo clean

# SPDX-License-Identifier: Apache-2.0 OR MIT
# The few commands that a person types. They install the Debian packages that they need (guest-kernel-config/packages.sh); a
# Rust toolchain must be there. Each step prints one line, with the time that it took.

PREFIX ?= /usr/local
# A failure before the end of a pipe is a failure.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
MAKEFLAGS += --no-print-directory
target := $(or $(CARGO_TARGET_DIR),target)
release := $(target)/release
config := guest-kernel-config
packages := $(config)/packages.sh
step := $(config)/step.sh
# The binary is static: it starts without a dynamic linker, and container runtimes mount it into images without glibc. The
# flags need an explicit target; without one cargo would use them for procedural macros, too. relr: relative relocations take
# 4 KB instead of 285 KB of the file.
triple := x86_64-unknown-linux-gnu
static := --target $(triple) --config 'target.$(triple).rustflags=["-C","target-feature=+crt-static","-C","link-arg=-Wl,-z,pack-relative-relocs"]'

.PHONY: help build kernel init binary test-programs cargo images run test bench check install install-files install-opennebula deb clean

help: ## print the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' Makefile

# The kernel's compiler fills the processors while cargo links, and the other way round.
build: cargo ## coracle, its guest kernel and its PID 1, in target/release
	@$(packages) kernel
	@$(MAKE) -j2 kernel binary

# build.sh prints the kernel's path as its last line. System.map names what a profile of the guest finds.
kernel:
	@kernel=$$($(config)/build.sh | tail -n 1) && \
	install -C -D -m 644 "$$kernel" $(release)/vmlinux && \
	install -C -m 644 "$${kernel%/*}/System.map" $(release)/System.map

binary: init
	@$(step) 'build coracle' cargo build --release --package vmm $(static)
	@install -C -D -m 755 $(target)/$(triple)/release/coracle $(release)/coracle

init:
	@$(step) 'build PID 1' cargo build --package guest-init --bin coracle-init --profile init
	@install -C -D -m 755 $(target)/init/coracle-init $(release)/coracle-init

# What `cargo xtask test` builds, as it does. The binary's last steps use one processor only.
test-programs:
	@$(step) 'build the tests' sh -c 'cargo build --package xtask && \
		cargo test --workspace --exclude coracle-tests --no-run && cargo test --package coracle-tests --no-run'

cargo:
	@command -v cargo > /dev/null || { echo 'make: cargo not found; install it from https://rustup.rs' >&2; exit 1; }
	@$(packages) build run

images: ## the test images; prints their directory as its last line
	@tests/images/build.sh

run: build ## a Python image in a microVM, and how long each stage of its start took
	@images=$$(tests/images/build.sh python | tail -n 1) && \
	$(release)/coracle run --timings "oci:$$images/python"; \
	status=$$?; echo "exit status $$status"; exit $$status

test: cargo ## unit tests, then the real binary with real images, on this machine's KVM and on a nested one
	@$(packages) kernel tests nested images
	@$(MAKE) -j4 kernel binary test-programs images
	@images=$$(tests/images/build.sh | tail -n 1) && CORACLE_IMAGES=$$images cargo xtask test

bench: build ## images beside other tools; in the nested world, side by side with QEMU's microvm machine: medians and ratios
	@$(packages) tests nested bench
	@images=$$(tests/images/build.sh | tail -n 1) && export CORACLE_IMAGES=$$images && \
	cargo xtask bench images && cargo xtask bench

check: cargo ## format, lints, layers, sizes, licences, unit tests
	@$(packages) tests
	cargo xtask check

# As root there may be no cargo: then what was built is installed.
install: $(if $(shell command -v cargo),build) ## to PREFIX (/usr/local): bin/coracle, bin/coracle-oci, lib/coracle, man pages, completions
	@$(MAKE) install-files

# What was built before.
install-files:
	install -D -m 755 $(release)/coracle $(DESTDIR)$(PREFIX)/bin/coracle
	ln -sf coracle $(DESTDIR)$(PREFIX)/bin/coracle-oci
	install -D -m 644 $(release)/vmlinux $(DESTDIR)$(PREFIX)/lib/coracle/vmlinux
	install -D -m 755 $(release)/coracle-init $(DESTDIR)$(PREFIX)/lib/coracle/coracle-init
	install -d $(DESTDIR)$(PREFIX)/share/man/man1
	$(release)/coracle man $(DESTDIR)$(PREFIX)/share/man/man1
	install -d $(addprefix $(DESTDIR)$(PREFIX)/share/,bash-completion/completions zsh/site-functions fish/vendor_completions.d)
	$(release)/coracle completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/coracle
	$(release)/coracle completion zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_coracle
	$(release)/coracle completion fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/coracle.fish

# vmm/docs/opennebula.md. What is not Coracle's own is linked to what OpenNebula has for KVM; an action without a script is linked to
# one that prints that it is not supported.
opennebula := vmm/drivers/opennebula
opennebula_probes := $(REMOTES)/im/coracle-probes.d
unsupported := attach_disk attach_nic backup backup_cancel detach_disk detach_nic driver_context exec exec_cancel migrate migrate_local \
	postbackup prebackup prereconfigure reconfigure resize resize_disk snapshot_create snapshot_delete \
	snapshot_revert update_conf update_nic
shared_probes := host/beacon/monitord-client-shepherd.sh host/beacon/date.sh host/system/architecture.sh host/system/cpu.sh \
	host/system/monitor_ds.rb host/system/name.sh host/system/version.sh vm/monitor/monitor_ds_vm.rb

install-opennebula: ## the OpenNebula driver to REMOTES=DIR, as a rule /var/lib/one/remotes
	@test -f '$(REMOTES)/im/kvm.d/monitord-client.rb' || { echo "make: REMOTES '$(REMOTES)': not OpenNebula's directory of remotes" >&2; exit 1; }
	install -D -t '$(REMOTES)/vmm/coracle' $(addprefix $(opennebula)/vmm/,deploy shutdown cancel restart save restore unsupported)
	install -m 644 -t '$(REMOTES)/vmm/coracle' $(addprefix $(opennebula)/vmm/,common.sh document.sh)
	for action in reboot reset; do ln -sf restart '$(REMOTES)/vmm/coracle'/$$action || exit; done
	for action in $(unsupported); do ln -sf unsupported '$(REMOTES)/vmm/coracle'/$$action || exit; done
	install -D -m 644 $(opennebula)/im/probe.sh '$(REMOTES)/im/lib/coracle-probe.sh'
	install -D $(opennebula)/im/vm_status.sh '$(opennebula_probes)/vm/status/state.sh'
	install -D $(opennebula)/im/vm_monitor.sh '$(opennebula_probes)/vm/monitor/usage.sh'
	install -D $(opennebula)/im/host_system.sh '$(opennebula_probes)/host/system/capacity.sh'
	install -D $(opennebula)/im/host_monitor.sh '$(opennebula_probes)/host/monitor/usage.sh'
	install -d $(addprefix '$(opennebula_probes)'/,host/beacon vm/snapshot vm/execution) '$(REMOTES)/im/coracle.d'
	for probe in $(shared_probes); do \
		test ! -e '$(REMOTES)/im/kvm-probes.d'/$$probe || ln -sfr '$(REMOTES)/im/kvm-probes.d'/$$probe '$(opennebula_probes)'/$$probe || exit; \
	done
	ln -sfr -t '$(REMOTES)/im/coracle.d' '$(REMOTES)'/im/kvm.d/monitord-client*
	test -e '$(REMOTES)/etc/vmm/coracle/coraclerc' || install -D -m 644 $(opennebula)/coraclerc '$(REMOTES)/etc/vmm/coracle/coraclerc'

deb: build ## a Debian package, in target/deb
	@$(packages) deb
	@rm -rf $(target)/deb && install -d $(target)/deb
	@$(step) 'stage the files' $(MAKE) install-files DESTDIR=$(target)/deb/tree PREFIX=/usr
	@vmm/package/deb.sh $(target)/deb/tree $(target)/deb
	@$(step) 'check the package' lintian --allow-root --fail-on error $(target)/deb/*.deb

clean: ## what was built here; kernels and images stay in ~/.cache/coracle
	cargo clean

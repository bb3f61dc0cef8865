# Everything that a person does with this repository. Each command installs what it needs (Debian or
# Ubuntu, as root; Rust by rustup is the one thing assumed).

# Tools that are built from source are kept outside the checkout, so that they are built once.
TOOLS ?= $(HOME)/.cache/longhorn-base-image/tools
TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
export TOOLS
export PATH := $(TOOLS)/bin:$(HOME)/.cargo/bin:$(PATH)
export PYTHONPATH := $(TOOLS)/python

.PHONY: help demo check test bench lint advisories nightly fuzz cross simulate deps images e2e e2e-storage vm-test flexvolume kubectl

help:
	@echo "make demo          from a directory to two pods' volumes, with a real registry and web server; UI=1 ends with a web UI"
	@echo "make check         formatting, clippy and unit tests, for every few minutes of work"
	@echo "make test          everything that must hold before a change goes in"
	@echo "make bench         the benchmarks, beside their references; CASE=name runs one"
	@echo "make lint          formatting, clippy, licences, dependencies that nothing uses"
	@echo "make nightly       what is too long for every change: fuzz, cross and simulate"
	@echo "make fuzz          the fuzz targets; SECONDS=n for each (60)"
	@echo "make cross         whether the programs build for aarch64 too"
	@echo "make advisories    known vulnerabilities of the dependencies; needs GitHub"
	@echo "make images        container images of the programs: target/images/*.tar, with lists of what is in them"
	@echo "make e2e           the examples on a real Kubernetes of two nodes; STEPS=\"provisioner clone\" runs some"
	@echo "make e2e-storage   the official External.Storage suite on it"
	@echo "make vm-test       replicated volumes in guests with DRBD 9; DRBD_MODULE=FILE[:FILE…] names its modules"
	@echo "make flexvolume    the FlexVolume executable, static, for this machine"
	@echo "make kubectl       the plugin of kubectl, static, for this machine, as krew takes it"
	@echo "make deps          installs what all of these need"

# Runs a command, and prints every half minute that it is still running.
ALOUD = scripts/aloud

# The programs are built first, by one command with one set of features: asking for them in another way would
# build the dependencies again. Without the optimizations of a release: a newcomer waits for the compiler, and
# `make test` uses the same dependencies.
demo:
	@scripts/deps build demo
	@$(ALOUD) cargo build --workspace --bins
	@E2E_NO_BUILD=1 UI=$(UI) $(TARGET)/debug/demo

# With the features and the profile of `make test`, so that neither builds what the other has built.
check:
	@scripts/deps build
	cargo fmt --all --check
	@$(ALOUD) cargo clippy --workspace --all-targets --all-features -- -D warnings
	@$(ALOUD) cargo test --workspace --lib --features failpoints --quiet

test:
	@scripts/deps build lint demo test
	@$(MAKE) --no-print-directory lint-only
	@scripts/test

nightly:
	@$(MAKE) --no-print-directory fuzz
	@$(MAKE) --no-print-directory cross
	@$(MAKE) --no-print-directory simulate

# A check, not programs: those need the other processor's container base as well.
cross:
	@scripts/deps build cross
	@CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc \
		$(ALOUD) cargo check --workspace --bins --target aarch64-unknown-linux-gnu

# Ten times what `make test` plays of replicated volumes.
simulate:
	@scripts/deps build
	@SEEDS=100000 $(ALOUD) cargo test --package replication --test simulation -- --nocapture

bench: flexvolume
	@scripts/deps build demo test bench
	@$(ALOUD) cargo build --profile dist --workspace --bins
	@E2E_NO_BUILD=1 $(TARGET)/dist/bench $(CASE)

lint:
	@scripts/deps build lint
	@$(MAKE) --no-print-directory lint-only

.PHONY: lint-only
lint-only:
	cargo fmt --all --check
	@$(ALOUD) cargo clippy --workspace --all-targets --all-features -- -D warnings
	cargo machete --skip-target-dir
	@$(ALOUD) cargo fetch --locked --quiet
	cargo deny --offline --log-level error check bans licenses sources

# Not part of lint: its database is a repository on GitHub, and what it says of a change depends on the day.
advisories:
	@scripts/deps build lint
	@$(ALOUD) cargo deny check advisories

# Without a C library of the host, but with this machine's own: no other toolchain is needed. Naming the
# target keeps the flags from what runs while it is built.
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
STATIC_PROFILE ?= static
STATIC = $(TARGET)/$(HOST)/$(STATIC_PROFILE:dev=debug)
flexvolume:
	@scripts/deps build
	@RUSTFLAGS="-C target-feature=+crt-static" \
		$(ALOUD) cargo build --package flexvolume --profile $(STATIC_PROFILE) --target $(HOST)
	@ls -l $(STATIC)/longhorn

# The archive that krew installs, and the manifest that names it. Built for Linux alone: for others the sources
# build there with `cargo build --package kubectl`.
KREW = $(TARGET)/krew
KREW_PLATFORM = linux-$(subst aarch64,arm64,$(subst x86_64,amd64,$(firstword $(subst -, ,$(HOST)))))
KREW_VERSION = v$(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
kubectl:
	@scripts/deps build
	@RUSTFLAGS="-C target-feature=+crt-static" \
		$(ALOUD) cargo build --package kubectl --profile $(STATIC_PROFILE) --target $(HOST)
	@mkdir -p $(KREW)
	@tar -C $(CURDIR) --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -c LICENSE \
		-C $(STATIC) kubectl-longhorn_image | gzip -n > $(KREW)/kubectl-longhorn_image-$(KREW_PLATFORM).tar.gz
	@sum=$$(sha256sum $(KREW)/kubectl-longhorn_image-$(KREW_PLATFORM).tar.gz | cut -d' ' -f1) && \
		sed -e 's/@VERSION@/$(KREW_VERSION)/g' -e "s/@SHA256_$(KREW_PLATFORM)@/$$sum/" \
		deploy/krew/longhorn-image.yaml > $(KREW)/longhorn-image.yaml
	@ls -l $(STATIC)/kubectl-longhorn_image $(KREW)/*.tar.gz

fuzz: SECONDS ?= 60
fuzz:
	@scripts/deps build fuzz
	fuzz/run $(SECONDS)

# One image for each program, without a container engine; the same sources give the same bytes.
images: flexvolume
	@scripts/deps build images
	@$(ALOUD) cargo fetch --locked --quiet
	@$(ALOUD) cargo build --profile dist --workspace --bins
	@$(TARGET)/dist/package --input target=$(TARGET)/dist --input static=$(STATIC) \
		--output $(TARGET)/images \
		--revision "$$(git rev-parse HEAD 2>/dev/null)" deploy/images/*.toml

e2e:
	@tests/kubernetes/run $(STEPS)

e2e-storage:
	@tests/kubernetes/run suite

# Three machines that lose power and cables, so one test after the other. VM="drbd …" runs some: tests/tests/vm_*.rs;
# ROW=row_340 one of them.
VM ?= $(patsubst tests/tests/vm_%.rs,%,$(wildcard tests/tests/vm_*.rs))
vm-test:
	@scripts/deps build vm
	@[ -n "$$E2E_NO_BUILD" ] || $(ALOUD) cargo build --workspace --bins --features failpoints
	@VM_TEST=1 E2E_NO_BUILD=1 $(ALOUD) cargo test --workspace --features failpoints \
		$(addprefix --test vm_,$(VM)) -- --test-threads=1 $(ROW)

deps:
	@scripts/deps build lint demo test bench fuzz e2e

# `make run` and `make test` are the two commands that the README names. Each installs the packages that it needs.

PREFIX ?= /usr
DESTDIR ?=
STATE ?= state
LISTEN ?= 127.0.0.1:5003
# Set by a packager: the contact for vulnerability reports, which goes into the installed SECURITY.md.
SECURITY_CONTACT ?=

SHELL = /bin/bash
WITH_CARGO = PATH="$$PATH:$$HOME/.cargo/bin"
CARGO = $(WITH_CARGO) cargo
BINARY = $(or $(CARGO_TARGET_DIR),target)/release/copr-keygen
SELINUX = $(abspath $(or $(CARGO_TARGET_DIR),target))/selinux
SUITES ?= bookworm trixie

# A program runs where it was built and on newer releases, because of the C library. HERE are the suites that can run
# the programs of this machine.
OLDER_trixie = bookworm
OLDER_forky = bookworm trixie
HERE = $(filter-out $(OLDER_$(shell sed -n "s/^VERSION_CODENAME=//p" /etc/os-release)),$(SUITES))

DIST = $(or $(CARGO_TARGET_DIR),target)/dist
DEB = $(or $(CARGO_TARGET_DIR),target)/deb
RPM = $(or $(CARGO_TARGET_DIR),target)/rpm
ARCHIVE = $(DIST)/copr-keygen-$(shell tools/version).tar.xz

# The program that goes into the container image. By default it is the one that `make build` builds.
IMAGE_BINARY ?=
IMAGE = $(or $(CARGO_TARGET_DIR),target)/image/copr-keygen-$(shell tools/version).tar

.PHONY: dist archive deb test-deb rpm test-rpm test-rpm-built image test-image check-watch test-cluster
.PHONY: help run build examples man test test-system test-openapi fuzz bench lint deny install uninstall clean
.PHONY: selinux check-selinux test-selinux install-selinux check-apparmor test-apparmor install-apparmor

help:
	@echo 'make run          build and serve on $(LISTEN), state in ./$(STATE)'
	@echo 'make build        build what `make install` installs'
	@echo 'make test         everything that needs no root'
	@echo 'make test-system  boot a real systemd on Debian 12 and 13 (root); SUITES=forky: on Debian testing'
	@echo 'make test-openapi ask a running service whether it is what docs/openapi.yaml says (no root)'
	@echo 'make fuzz         hostile bytes for all that reads them, $$FUZZ_SECONDS (60) each target'
	@echo 'make bench        measure beside bare gpg, write docs/performance.*; see there (no root; up to an hour)'
	@echo 'make man          write man/ and completions/ anew, after a change of options or settings'
	@echo 'make lint         rustfmt, clippy, shellcheck, the figures of tools/house'
	@echo 'make deny         licenses and sources of the dependencies, by cargo-deny'
	@echo 'make selinux      build the SELinux policy into target/selinux, see selinux/README.md'
	@echo 'make check-selinux, check-apparmor   check the policies; nothing is loaded'
	@echo 'make test-selinux, test-apparmor   boot Debian enforcing them under qemu (root)'
	@echo 'make check-watch  let a real Prometheus watch real services, and see each alert fire; check the rules (no root)'
	@echo 'make install      install below $$DESTDIR$$PREFIX (DESTDIR, PREFIX=$(PREFIX))'
	@echo 'make uninstall    remove what `make install` put there; keys and configuration stay'
	@echo 'make install-selinux, install-apparmor   install the policy or the profiles likewise; nothing is loaded'
	@echo 'make dist         the sources of the last commit with every crate, checksums and a bill of materials'
	@echo 'make deb          Debian packages from that, without network, in target/deb'
	@echo 'make test-deb     install them by apt in Debian 12 and 13, boot, upgrade, remove and purge (root)'
	@echo 'make rpm          rpm packages likewise, and their source package, in target/rpm'
	@echo 'make test-rpm     build them in Debian 12 and 13, install them by rpm and dnf, boot, move in, upgrade (root); SUITES=forky: rpm 6'
	@echo 'make test-rpm-built  install by rpm and dnf what `make rpm` has built, and boot; a part of that in a few minutes (root)'
	@echo 'make image        build the container image into target/image, see docs/kubernetes.md; IMAGE_BINARY=FILE: of this copr-keygen, with copr-keygen-signd beside it'
	@echo 'make test-image   run that image by podman as a cluster does (root)'
	@echo 'make test-cluster three hosts, etcd and HAProxy, one fault after the other (root); MINUTES=30 SEED=, 0: the short form'
	@echo 'make clean        remove what was built'

run:
	@tools/setup build
	$(CARGO) build --release --locked
	@echo
	@echo 'Make a key, from another terminal:'
	@echo
	@echo "    curl -i -d '{\"name_real\": \"user_project\", \"name_email\": \"user#project@copr.example.org\"}' http://$(LISTEN)/gen_key"
	@echo
	@exec $(BINARY) serve --state-dir $(STATE) --listen $(LISTEN)

build:
	@tools/setup build
	$(CARGO) build --release --locked

# The clients and stand-ins of the tests.
examples: build
	$(CARGO) build --release --locked --examples

man:
	$(CARGO) run --quiet --locked --example manual

# Run twice as many tests at once as there are processors: a test waits half of its time for gpg, etcd or a clock.
test:
	@tools/setup build test
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-$$((2 * $$(nproc)))} $(CARGO) test --locked --workspace

# CASES names the cases to run; without it, or if it is `all`, every case runs.
test-system: examples
	@tools/setup system
	tests/system/run $(HERE) $(filter-out all,$(CASES))

test-openapi: build
	@tools/setup openapi
	tests/openapi/run

fuzz:
	@tools/setup build fuzz
	tools/fuzz build
	tools/fuzz run

bench:
	@tools/setup build bench
	$(CARGO) build --release --locked --examples
	$(CARGO) bench --locked --bench performance

# The grep finds let chains (`if let … && …`). They need Rust 1.88, but Debian 13 has 1.85, and a newer clippy
# does not report them.
lint:
	@tools/setup build lint
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	! grep -rPzl --include='*.rs' '\b(if|while)\s+let\s[^{;]*&&|&&\s*let\s' src crates tests benches examples fuzz tools
	tools/house
	shellcheck $(filter-out tools/house %.rs %.bash,$(wildcard tools/*)) .ci/run tests/readme $(filter-out tests/cluster/run,$(wildcard tests/*/run)) $(wildcard tests/packages/deb tests/packages/rpm packaging/image/copr/* tests/*.sh tests/packages/*.sh tests/packages/cases/*.sh tests/system/*.sh tests/system/cases/*.sh)
	shellcheck -x selinux/check $(wildcard tests/guest/run* tests/guest/guest-*) tests/guest/probe

deny:
	@tools/setup build deny
	$(CARGO) deny --locked check licenses bans sources

selinux:
	@tools/setup selinux
	$(MAKE) -C selinux OUT=$(SELINUX)

check-selinux: selinux
	selinux/check $(SUITES)

test-selinux: examples
	@tools/setup selinux guest
	tests/guest/run selinux $(HERE)

# --skip-kernel-load and --skip-cache: the profile is only parsed. Neither the kernel nor a cache is touched.
check-apparmor:
	@tools/setup apparmor
	PATH="$$PATH:/usr/sbin:/sbin" apparmor_parser --skip-kernel-load --skip-cache --Include apparmor apparmor/usr.bin.copr-keygen

test-apparmor: examples
	@tools/setup guest
	tests/guest/run apparmor $(HERE)

check-watch: examples
	@tools/setup watch
	promtool check rules contrib/prometheus/copr-keygen.rules.yml
	promtool test rules contrib/prometheus/tests.yml
	tests/watch/run

# The image is reproducible: the same Debian packages and the same program give the same bytes.
image: $(if $(IMAGE_BINARY),,build)
	@tools/setup image
	SOURCE_DATE_EPOCH=$$(tools/version epoch) packaging/image/build $(or $(IMAGE_BINARY),$(BINARY)) $$(tools/version) $(IMAGE)

test-image: image examples
	@tools/setup image-test
	tests/image/run $(IMAGE)

MINUTES ?= 30
SEED ?=
test-cluster: examples
	@tools/setup cluster
	tests/cluster/run $(MINUTES) $(SEED)

# On a host that has the keyring of the old service, the units of obs-signd do not get the drop-in. They stay as
# they are until `copr-keygen import` has taken the keys over and printed what is left to do.
OLD_SERVICE = $(shell find $(DESTDIR)/var/lib/copr-keygen/gnupg -maxdepth 1 -name 'pubring.*' -size +0 2>/dev/null)
SIGND_UNITS = $(if $(OLD_SERVICE),,signd obssignd)

# All files of an installation. $(1) is the command to run on each file, $(2) the units of obs-signd that get the
# drop-in.
define FILES
	$(1) as 0755 $(DESTDIR)$(PREFIX)/bin/copr-keygen-signd $(BINARY)-signd
	$(1) as 0755 $(DESTDIR)$(PREFIX)/bin/copr-keygen $(BINARY)
	$(1) link copr-keygen $(DESTDIR)$(PREFIX)/bin/gpg-copr
	$(1) link copr-keygen $(DESTDIR)$(PREFIX)/bin/gpg_copr.sh
	$(1) file 0644 $(DESTDIR)$(PREFIX)/lib/systemd/system units/copr-keygen.socket units/copr-keygen.service units/copr-keygen-prolong.service units/copr-keygen-prolong.timer units/copr-keygen-pool.service units/copr-keygen-pool.path units/copr-keygen-phrases.service units/copr-keygen-signd.socket units/copr-keygen-signd.service units/copr-keygen-backup.service units/copr-keygen-backup.timer units/copr-keygen-follow.service
	$(1) file 0644 $(DESTDIR)$(PREFIX)/lib/systemd/system/copr-keygen.service.d units/copr-keygen-.service.d/10-sandbox.conf
	$(1) file 0644 $(DESTDIR)$(PREFIX)/lib/systemd/system/copr-keygen-.service.d units/copr-keygen-.service.d/10-sandbox.conf
	$(1) file 0644 $(DESTDIR)$(PREFIX)/share/copr-keygen units/signd.service.d/10-copr-keygen.conf
	for unit in $(2); do $(1) file 0644 $(DESTDIR)$(PREFIX)/lib/systemd/system/$$unit.service.d units/signd.service.d/10-copr-keygen.conf || exit; done
	$(1) file 0644 $(DESTDIR)$(PREFIX)/lib/systemd/catalog units/copr-keygen.catalog
	$(1) file 0644 $(DESTDIR)$(PREFIX)/lib/sysusers.d sysusers.d/copr-keygen.conf
	$(1) file 0644 $(DESTDIR)$(PREFIX)/lib/tmpfiles.d tmpfiles.d/copr-keygen.conf
	$(1) file 0644 $(DESTDIR)$(PREFIX)/share/man/man1 man/*.1
	$(1) file 0644 $(DESTDIR)$(PREFIX)/share/man/man5 man/*.5
	$(1) as 0644 $(DESTDIR)$(PREFIX)/share/bash-completion/completions/copr-keygen completions/copr-keygen.bash
	$(1) file 0644 $(DESTDIR)$(PREFIX)/share/zsh/site-functions completions/_copr-keygen
	$(1) file 0644 $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d completions/copr-keygen.fish
	$(1) file 0644 $(DESTDIR)$(PREFIX)/share/doc/copr-keygen README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md LICENSE
	$(1) file 0644 $(DESTDIR)$(PREFIX)/share/doc/copr-keygen/docs docs/*.md docs/openapi.yaml $(wildcard docs/performance*.json docs/performance.svg) docs/sign.conf docs/backend.conf
	$(1) file 0644 $(DESTDIR)$(PREFIX)/share/doc/copr-keygen/contrib/prometheus contrib/prometheus/copr-keygen.rules.yml
	$(1) file 0644 $(DESTDIR)$(PREFIX)/share/doc/copr-keygen/contrib/cluster contrib/cluster/20-cluster.conf
	$(1) file 0644 $(DESTDIR)$(PREFIX)/share/doc/copr-keygen/contrib/grafana contrib/grafana/copr-keygen.json
	$(1) file 0644 $(DESTDIR)$(PREFIX)/share/doc/copr-keygen/selinux selinux/README.md
	$(1) file 0644 $(DESTDIR)$(PREFIX)/share/doc/copr-keygen/apparmor apparmor/README.md
	$(1) file 0644 $(DESTDIR)$(PREFIX)/share/doc/copr-keygen/fuzz fuzz/README.md
endef

# Installs what `make build` has built, each file by rename. It builds nothing, so it can run as root.
install:
	$(call FILES,tools/put,$(SIGND_UNITS))
	$(if $(SECURITY_CONTACT),sed -i 's|to the maintainers|to $(SECURITY_CONTACT)|' $(DESTDIR)$(PREFIX)/share/doc/copr-keygen/SECURITY.md)
	$(if $(OLD_SERVICE),@echo 'This host has the keys of the old service; nothing of it was changed. Go on with docs/moving.md.')

# Removes what `make install` has installed and restores the programs that it had set aside. Keys, configuration
# and the administrator's own files stay. The last lines of the output name them.
uninstall:
	@tools/put idle "$(DESTDIR)"
	$(call FILES,tools/put remove,signd obssignd)
	@tools/put left "$(DESTDIR)"

# Install what `make selinux` has built, and the AppArmor profiles. Loading them is up to the administrator or a
# package.
install-selinux:
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/selinux/packages/copr-keygen $(SELINUX)/copr_keygen.pp selinux/copr_keygen_ports.cil
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/selinux/devel/include/contrib selinux/copr_keygen.if

install-apparmor:
	install -D -m 0644 -t $(DESTDIR)/etc/apparmor.d apparmor/usr.bin.copr-keygen
	install -D -m 0644 -t $(DESTDIR)/etc/apparmor.d/abstractions apparmor/abstractions/copr-keygen
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/lib/systemd/system/copr-keygen.service.d apparmor/20-apparmor.conf
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/lib/systemd/system/copr-keygen-.service.d apparmor/20-apparmor.conf
	install -D -m 0644 apparmor/20-apparmor-signd.conf $(DESTDIR)$(PREFIX)/lib/systemd/system/signd.service.d/20-apparmor.conf
	install -D -m 0644 apparmor/20-apparmor-signd.conf $(DESTDIR)$(PREFIX)/lib/systemd/system/obssignd.service.d/20-apparmor.conf

dist:
	@tools/setup build archive dist
	$(WITH_CARGO) tools/dist all $(DIST)

archive:
	@tools/setup build archive
	$(WITH_CARGO) tools/dist archive $(DIST)

deb: archive
	@tools/setup deb
	$(WITH_CARGO) tools/deb $(ARCHIVE) $(DEB)

# Installs, boots and upgrades the packages. CASES names the system cases that run on the installed package, or is
# `all`.
test-deb: deb examples
	@tools/setup system
	tests/packages/deb $(HERE) $(CASES)

rpm: archive
	@tools/setup rpm
	$(WITH_CARGO) tools/rpm $(ARCHIVE) $(RPM)

# Builds the packages with the rpm of each suite. CASES is as above; CASES=all runs every case.
test-rpm: archive examples
	@tools/setup system rpmlint
	tests/packages/rpm $(SUITES) $(CASES)

# Runs a part of test-rpm that takes a few minutes. It tests the packages that the rpm of this host has built,
# without a second build and without upgrades.
test-rpm-built: rpm examples
	@tools/setup system rpmlint
	tests/packages/rpm built $(HERE) $(CASES)

clean:
	$(CARGO) clean

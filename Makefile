# SPDX-License-Identifier: BSD-3-Clause
# A thin front to meson and tools/; make help lists the targets. BUILD=build-mine works in a
# directory of its own, OPTIONS=-Dskip=src/dev/x.c is given to meson, T="test_x crash_y" with
# make test builds and runs these programs alone.

BUILD ?= build
OPTIONS ?=
T ?=
FUZZ_SECONDS ?= 10

build = tools/build $(1) --werror $(OPTIONS)
check = tools/check $(1)
# A check that cannot even be built ends with the line of every check, too.
to_check = $(1) || { echo "0 passed, 1 failed, 0 skipped"; exit 1; }
# Sanitizers are some ten times slower: fewer crash images, more time for each case.
slow = VARVE_CRASH_IMAGES=$${VARVE_CRASH_IMAGES:-10000} VARVE_TEST_TIMEOUT=$${VARVE_TEST_TIMEOUT:-600}
export FUZZ_SECONDS

.PHONY: all deps demo demo-boost demo-btt test check check-asan check-tsan check-valgrind \
	check-mutants check-model check-long check-lsvd check-boost check-rbd check-btt bench-lsvd \
	bench-boost bench-rbd bench-btt check-clang fuzz-smoke cover tidy format install clean help

all: ## build everything into build/ (the default); the program is build/varve
	@$(call build,$(BUILD))

deps: ## install the packages of packages.txt that are missing
	@tools/install-deps

demo: deps all ## show what Varve does, on this machine, in a minute
	@VARVE_BUILD=$(abspath $(BUILD)) tools/demo

demo-boost: deps all ## the same for a cache before a device that has its data already
	@VARVE_BUILD=$(abspath $(BUILD)) tools/demo-boost

demo-btt: deps all ## the same for atomic blocks in persistent memory, and libpmemblk's programs
	@VARVE_BUILD=$(abspath $(BUILD)) tools/demo-btt

test: ## build and run the test programs named in T="test_x crash_y"
	$(if $(T),,$(error say which: make test T="test_x crash_y"))
	@tools/build $(BUILD) $(addprefix -t tests/,$(T)) --werror $(OPTIONS)
	@VARVE_BUILD=$(abspath $(BUILD)) tools/run-tests $(addprefix $(BUILD)/tests/,$(T))

check: deps ## all quick tests: unit, crash, corpus, model, tools, quick integration
	@$(call to_check,$(call build,$(BUILD)))
	@$(call check,$(BUILD)) programs tools model quick

check-asan: ## test programs under the address and undefined-behaviour sanitizers
	@$(call to_check,$(call build,$(BUILD)-asan) -Db_sanitize=address,undefined)
	@$(slow) $(call check,$(BUILD)-asan) programs

check-tsan: ## test programs under the thread sanitizer
	@$(call to_check,$(call build,$(BUILD)-tsan) -Db_sanitize=thread)
	@$(slow) $(call check,$(BUILD)-tsan) programs

check-valgrind: ## test programs under valgrind
	@$(call to_check,$(call build,$(BUILD)))
	@$(call check,$(BUILD)) --valgrind programs

check-clang: ## build with clang, warnings being errors, and run the test programs
	@$(call to_check,CC=clang $(call build,$(BUILD)-clang))
	@$(call check,$(BUILD)-clang) programs

check-mutants: ## remove each durability step in turn; a crash test must fail each time
	@$(call to_check,$(call build,$(BUILD)-mutants) -Dmutants=true)
	@tools/check-mutants $(BUILD)-mutants

check-model: ## verify the Promela models
	@$(call check,$(BUILD)) model

check-long: ## crash tests with many more images and seeds; takes hours
	@$(call to_check,$(call build,$(BUILD)))
	@tools/check-long $(BUILD)

check-lsvd: deps ## everything of lsvd: its tests, and integration with real clients and servers
	@$(call to_check,$(call build,$(BUILD)))
	@$(call check,$(BUILD)) lsvd

check-boost: deps ## everything of boost: its tests, and integration with real devices
	@$(call to_check,$(call build,$(BUILD)))
	@$(call check,$(BUILD)) boost

check-btt: deps ## everything of btt and pmem, and PMDK's programs and pools
	@$(call to_check,$(call build,$(BUILD)))
	@$(call check,$(BUILD)) btt

check-rbd: deps ## everything of librbd's interface: with qemu, fio and virtual machines
	@$(call to_check,$(call build,$(BUILD)))
	@$(call check,$(BUILD)) rbd

bench-lsvd: ## measure lsvd volumes; prints a table, and notes on stderr
	@$(call build,$(BUILD)) >&2
	@VARVE_BUILD=$(abspath $(BUILD)) tools/bench-lsvd

bench-boost: ## measure write caches before block devices, in the same way
	@$(call build,$(BUILD)) >&2
	@VARVE_BUILD=$(abspath $(BUILD)) tools/bench-boost

bench-rbd: ## measure fio's rbd engine with our librbd, in the same way
	@$(call build,$(BUILD)) >&2
	@VARVE_BUILD=$(abspath $(BUILD)) tools/bench-rbd

bench-btt: ## measure atomic blocks beside PMDK's libpmemblk, in the same way
	@$(call build,$(BUILD)) >&2
	@VARVE_BUILD=$(abspath $(BUILD)) tools/bench-btt

fuzz-smoke: ## run each fuzzer for FUZZ_SECONDS (10)
	@tools/fuzz-smoke $(BUILD)-fuzz $(OPTIONS)

cover: ## run the test programs and write a coverage report to build-cover/html
	@$(call build,$(BUILD)-cover) -Db_coverage=true
	@$(call check,$(BUILD)-cover) programs
	@tools/cover $(BUILD)-cover

tidy: all ## clang-tidy over the sources
	@tools/tidy $(BUILD)

format: ## clang-format over the files that changed since HEAD
	@tools/format

install: all ## install (DESTDIR, and meson's prefix by OPTIONS=--prefix=/usr)
	@meson install -C $(BUILD) --no-rebuild

clean: ## remove every build directory
	rm -rf $(BUILD) $(addprefix $(BUILD)-,asan tsan clang cover fuzz mutants) $(BUILD)*.lock

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18

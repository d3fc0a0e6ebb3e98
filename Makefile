# SPDX-License-Identifier: BSD-3-Clause
# A thin front to meson and tools/; make help lists the targets. BUILD=build-mine works in a
# directory of its own, OPTIONS=-Dskip=src/dev/x.c is given to meson, T="test_x crash_y" with
# make test builds and runs these programs alone.

BUILD ?= build
OPTIONS ?=
T ?=
FUZZ_SECONDS ?= 10

ASAN = $(BUILD)-asan
TSAN = $(BUILD)-tsan
CLANG = $(BUILD)-clang
COVER = $(BUILD)-cover

configure = tools/configure $(1) --werror $(OPTIONS)

.PHONY: all deps demo test check check-asan check-tsan check-valgrind check-mutants check-model \
	check-long check-lsvd bench-lsvd check-clang fuzz-smoke cover tidy format install clean help

all: ## build everything into build/ (the default); the program is build/varve
	@$(call configure,$(BUILD))
	@ninja -k 0 -C $(BUILD)

deps: ## install the packages of packages.txt that are missing
	@tools/install-deps

demo: deps all ## show what Varve does, on this machine, in a minute
	@VARVE_BUILD=$(abspath $(BUILD)) tools/demo

test: ## build and run the test programs named in T="test_x crash_y"
	@$(call configure,$(BUILD))
	@ninja -C $(BUILD) $(addprefix tests/,$(T))
	@VARVE_BUILD=$(abspath $(BUILD)) tools/run-tests $(addprefix $(BUILD)/tests/,$(T))

check: deps all ## all quick tests: unit, crash, corpus, model, tools, quick integration
	@tools/check $(BUILD) programs tools model quick

check-asan: ## unit and crash tests and the corpus under address and undefined-behaviour sanitizers
	@$(call configure,$(ASAN)) -Db_sanitize=address,undefined
	@ninja -C $(ASAN)
	@tools/check $(ASAN) programs

check-tsan: ## unit and crash tests and the corpus under the thread sanitizer
	@$(call configure,$(TSAN)) -Db_sanitize=thread
	@ninja -C $(TSAN)
	@tools/check $(TSAN) programs

check-valgrind: all ## unit and crash tests and the corpus under valgrind
	@tools/check --valgrind $(BUILD) programs

check-clang: ## build with clang, warnings being errors, and run unit and crash tests and the corpus
	@CC=clang $(call configure,$(CLANG))
	@ninja -C $(CLANG)
	@tools/check $(CLANG) programs

check-mutants: ## remove each durability step in turn; a crash test must fail each time
	@$(call configure,$(BUILD)-mutants) -Dmutants=true
	@ninja -C $(BUILD)-mutants
	@tools/check-mutants $(BUILD)-mutants

check-model: ## verify the Promela models
	@tools/check $(BUILD) model

check-long: all ## crash tests with many more images and seeds; takes hours
	@tools/check-long $(BUILD)

check-lsvd: deps all ## everything of lsvd: its tests, and integration with real clients and servers
	@tools/check $(BUILD) lsvd

bench-lsvd: all ## measure lsvd volumes; prints a table
	@VARVE_BUILD=$(abspath $(BUILD)) tools/bench-lsvd

fuzz-smoke: ## run each fuzzer for FUZZ_SECONDS (10)
	@FUZZ_SECONDS=$(FUZZ_SECONDS) tools/fuzz-smoke $(BUILD)-fuzz $(OPTIONS)

cover: ## run the quick tests and write a coverage report to build-cover/html
	@$(call configure,$(COVER)) -Db_coverage=true
	@ninja -C $(COVER)
	@tools/check $(COVER) programs
	@tools/cover $(COVER)

tidy: all ## clang-tidy over the sources
	@tools/tidy $(BUILD)

format: ## clang-format over the files that changed since HEAD
	@tools/format

install: all ## install (DESTDIR, and meson's prefix by OPTIONS=--prefix=/usr)
	@meson install -C $(BUILD) --no-rebuild

clean: ## remove every build directory
	rm -rf $(BUILD) $(BUILD)-asan $(BUILD)-tsan $(BUILD)-clang $(BUILD)-cover $(BUILD)-fuzz \
		$(BUILD)-mutants

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18

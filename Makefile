# Everything that users, CI and maintainers run. `make help` lists it.

# Built together with a test, the program's dependencies have the features that the tests need: `make demo` and `make test`
# compile each of them once, whichever comes first.
BUILD := cargo build --bin pgrestored --test offline
PROGRAM := "$${CARGO_TARGET_DIR:-target}/debug/pgrestored"

# `make bench QUICK=1` measures some 190 MB, three pairs of each row, and writes into no page.
ifdef QUICK
BENCH := BENCH_SCALE="$${BENCH_SCALE:-0.3}" BENCH_PAIRS="$${BENCH_PAIRS:-3}" BENCH_PEERS=0 BENCH_RATES="$${BENCH_RATES:-0,50}" \
	BENCH_TARGETS="$${BENCH_TARGETS:-durable}" BENCH_DATASETS="$${BENCH_DATASETS:-mixed,events}" cargo bench --bench restore
else
BENCH := cargo bench --no-fail-fast --bench restore --bench never_slower --bench verify --bench growth --bench scale --bench scaling --bench mask --bench resume \
	--bench tuning
# The headline rows on the other versions of PostgreSQL that are installed (`make setup`).
ifndef BENCH_POSTGRES
OTHER_VERSIONS := BENCH_POSTGRES=others BENCH_DATASETS=mixed,events,chain,partitions BENCH_RATES=0 BENCH_TARGETS=durable BENCH_PAIRS=3 BENCH_PEERS=0 \
	cargo bench --bench restore
endif
endif

.PHONY: help setup demo test check msrv repository screenshots recording bench smoke soak nightly mutants fuzz advisories schemas reference release fmt

help: ## Show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 12

setup: ## Install missing tools (PostgreSQL, nextest, other PostgreSQL versions for the tests)
	@scripts/setup.sh all

demo: ## Run a complete restore on this machine, from nothing to a restored database
	@scripts/setup.sh demo
	@echo "demo: building; a first build takes about ten minutes on two cores"
	@$(BUILD)
	@$(PROGRAM) demo

test: setup ## Run every test
	@TMPDIR="$$(scripts/scratch.sh)" cargo nextest run --test-threads "$$((4 * $$(nproc)))"; ended=$$?; scripts/slowest.sh; exit $$ended
	@cargo test --quiet --doc --workspace

check: ## Check format, lints, licences and sources of dependencies, generated files
	@cargo fmt --all --check
	@cargo clippy --all-targets --quiet -- -D warnings
	@scripts/setup.sh deny
	@cargo deny --log-level error check bans licenses sources
	@cargo test --quiet --test offline contract::

schemas: ## Write schemas/ from the types
	@$(BUILD) --quiet
	@$(PROGRAM) schema --write schemas

reference: ## Write docs/reference/ from the code
	@$(BUILD) --quiet
	@$(PROGRAM) reference docs/reference

bench: ## Compare with download + pg_restore -j; measure the cost of a proof, of masking and of keeping work, growth, settings of the server, other versions of PostgreSQL, and how workers scale (docs/speed.md lists the variables); QUICK=1: the headline rows in five minutes
	@scripts/setup.sh demo
	@$(BENCH); ended=$$?; $(or $(OTHER_VERSIONS),true); exit $$(( ended + $$? ))

smoke: ## Run the first benchmark on some 20 MB of each dataset, once and unoptimized, to see that it works
	@scripts/setup.sh demo
	@BENCH_SCALE=0.04 BENCH_PAIRS=1 BENCH_RATES=0 BENCH_TARGETS=durable cargo bench --profile dev --bench restore

release: ## Build the release artifacts in target/dist
	@scripts/release.sh

soak: setup ## Run every fault campaign completely (hours); each prints a line CAMPAIGN with its seed and totals
	@TMPDIR="$$(scripts/scratch.sh)" CAMPAIGN=full cargo nextest run --profile soak --no-capture --lib --test pg --test cloud --test offline --test reader --test properties \
		-E 'test(deploy::mutants_of) | test(formats::product) | test(/^verify::clean_/) | test(crash::) | test(nights::) | test(/^(resume|handover|tampering|failover)::/) | test(cuts::) | test(race::) | test(swap::reconnecting) | test(damage::) | test(hostile::) | test(masked_joins::) | test(refusals::) | test(storage::every_fault) | test(sigterm) | test(google::) | test(a_long_restore) | test(forged_index) | test(own_verification) | test(the_self_test) | test(page::)' \
		-E 'binary(pg) & test(/^(access::(changes|nobody)_|causes::|choosing::|corpus::|encodings::|extensions::|fill::|limits::a_decompression_bomb|formats::|in_place::pg_cron_|inputs::(cut|damaged)_|journal::a_request_has_|leaks::|managed::(a_role|backups)_|mask_commands::pg_restore_|masking::|order::|parts::|pieces::|redirected::|round_trip::|servers::(a_part|from|roles)_|text::(data_only_text_gives|texts_give)|tuples::|verify::(replayed|rows_are|what_another)_)/)' \
		-E 'binary(reader) | binary(properties) | test(any_chunking) | test(very_many_names) | test(long_texts_are_read)' \
		2>&1 | grep --line-buffered -v '^{'

msrv: ## Check that the oldest supported Rust (rust-version in Cargo.toml) still compiles everything
	@scripts/msrv.sh

repository: ## Set the project's address everywhere (URL), and that for reports of vulnerabilities (SECURITY)
	@scripts/repository.sh "$(URL)" "$(SECURITY)"

screenshots: setup ## Take the pictures of README again
	@scripts/screenshots.sh

recording: ## Record `make demo` again for README
	@scripts/setup.sh demo
	@$(BUILD) --quiet
	@scripts/recording.py docs/images/demo.svg $(PROGRAM) demo

mutants: setup ## Mutation tests of the code behind the guarantees: every mutant must fail a test (hours)
	@scripts/mutants.sh

nightly: soak fuzz msrv advisories ## Run what takes too long for every change

fuzz: ## Run every fuzz target for FUZZ_SECONDS (60), with FUZZ_SANITIZER (address); needs a nightly toolchain
	@scripts/fuzz.sh

advisories: ## Check dependencies for known vulnerabilities; needs the network
	@scripts/setup.sh deny
	@cargo deny --log-level error check advisories

fmt: ## Format the code
	@cargo fmt --all

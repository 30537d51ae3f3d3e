# make test  everything that must hold before a change goes in: the same that CI runs
# make bench  compares what a request costs and takes with nginx and others, and the stores, and weighs sessions (twenty minutes)
# make fuzz  looks for input that breaks what must hold (fuzz/README.md)

CARGO ?= cargo

.PHONY: test setup fmt lint doc unit bench fuzz clean

test: setup fmt lint doc unit

# Installs what the tests need and the machine lacks.
setup:
	tests/setup.sh

fmt:
	$(CARGO) fmt --check

lint:
	$(CARGO) clippy --all-targets --locked -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --document-private-items --locked

unit:
	$(CARGO) test --locked

bench:
	benches/setup.sh
	$(CARGO) bench --locked --bench peers --bench stores --bench latency --bench sessions --bench growth

# Seconds for each target.
FUZZ_SECONDS ?= 120

fuzz:
	fuzz/run.sh $(FUZZ_SECONDS)

clean:
	$(CARGO) clean

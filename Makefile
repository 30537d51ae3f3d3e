# make test  everything that must hold before a change goes in: the same that CI runs
# make release  the program as fast as it gets: target/optimized/vestibule (a quarter of an hour)
# make bench  compares what a request costs and takes with nginx and others, and the stores, and weighs sessions (long)
# make fuzz  looks for input that breaks what must hold (fuzz/README.md)

CARGO ?= cargo

.PHONY: test setup fmt lint doc unit release bench fuzz clean

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

release:
	benches/setup.sh
	CARGO=$(CARGO) benches/release.sh

bench: release
	VESTIBULE=$(CURDIR)/target/optimized/vestibule $(CARGO) bench --locked --bench peers --bench stores --bench latency --bench sessions --bench growth

# Seconds for each target.
FUZZ_SECONDS ?= 120

fuzz:
	fuzz/run.sh $(FUZZ_SECONDS)

clean:
	$(CARGO) clean

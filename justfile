# Everything that has to be green before a commit lands. `just` alone lists the recipes.
default:
    @just --list

# The whole gate, as the machine runs it
ci:
    bash .ci/run

# Format, lint and test: what to run while working
dev:
    cargo fmt
    cargo clippy --all-targets --all-features --locked -- -D warnings
    cargo test --all-features --locked

# Real clients against `cosgate dev`
interop:
    tests/interop/run

# The documentation as a book, in target/book (needs mdbook 0.5)
book:
    mdbook build docs

# Licences, bans and sources (needs cargo-deny)
deny:
    cargo deny check bans licenses sources

# Time and allocations of parsing, verifying, signing and decoding
bench:
    cargo bench --bench signing --bench payload --bench upload

# cosgate against nginx, HAProxy and Envoy on this machine: `just race`, or `just race --quick` for about a minute
race *arguments:
    benches/race/run table {{arguments}}

# Instructions and allocations of a request against those in benches/race/counts.toml; `just count --save` keeps new ones
count *arguments:
    benches/race/run count {{arguments}}

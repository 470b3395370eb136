#!/usr/bin/env bash
# Mutates the code behind the guarantees (.cargo/mutants.toml); a test must catch every mutant. Three rounds, each
# with the survivors of the previous one: unit tests, tests with servers, the rest.
# Arguments are passed to cargo-mutants. The survivors are in target/mutants.out/missed.txt.
set -euo pipefail
cd "$(dirname "$0")/.."
TMPDIR="$(scripts/scratch.sh)"
export TMPDIR

cargo mutants --version >/dev/null 2>&1 || { echo "mutants: installing cargo-mutants"; cargo install --quiet --locked cargo-mutants; }

# Arguments: what to build, then `--`, then which of its tests to run.
round() {
  local status=0 build=()
  while [ "$1" != -- ]; do build+=("--cargo-arg=$1"); shift; done
  cargo mutants --in-place --no-shuffle --iterate --output target --no-times "${build[@]}" "${options[@]}" "$@" --fail-fast || status=$?
  # 2: some were missed; 3: some only hit the time limit.
  [ $status -le 3 ] && [ $status -ne 1 ] || exit $status
}
options=("$@")
rm -rf target/mutants.out target/mutants.out.old
round --lib --
round --test=pg -- -E 'test(journal::) | test(swap::) | test(cuts::) | test(limits::) | test(tls::) | test(damage::truncated_and_flipped_gzip) | test(hostile::)'
round --test=offline --test=cloud -- -E 'test(contract::) | test(cli::) | test(refusals::) | test(admission::) | test(worker::) | test(crash::killed_while_replacing)'

cd target/mutants.out
killed=$(sort -u caught.txt previously_caught.txt timeout.txt 2>/dev/null | wc -l)
missed=$(wc -l <missed.txt)
echo "CAMPAIGN mutants: $killed killed, $missed survived: $((100 * killed / (killed + missed))) %"

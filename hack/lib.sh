# Sourced by the commands beside it: where things lie, how they speak, which versions are good enough.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Real parts live outside the checkout and are kept between runs.
TOOLS=${TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/coxswain-tools}
mkdir -p "$TOOLS/bin"
TOOLS=$(cd "$TOOLS" && pwd)
export TOOLS

say() { printf '%s\n' "$*" >&2; }
die() { printf '%s\n' "$@" >&2; exit 1; }

at_least() { # WANTED VERSION: numbers between dots, as sort -V compares them
  [[ -n $2 && $(printf '%s\n' "$1" "$2" | sort -V | head -n 1) == "$1" ]]
}

# Each of these prints the version of the executable it is given, and fails when coxswain or the tests cannot use it.

good_nginx() { # 1.30.4 and 1.31.3 are the first without CVE-2026-42945, -9256 and -42533
  local version options
  version=$("$1" -v 2>&1 | sed -n 's|.*nginx/\([0-9.]*\).*|\1|p')
  options=$("$1" -V 2>&1) || return
  echo "$version"
  case $version in
    1.30.*) at_least 1.30.4 "$version" || return ;;
    *) at_least 1.31.3 "$version" || return ;;
  esac
  for module in http_ssl http_v2 http_realip http_auth_request; do
    [[ $options == *--with-${module}_module* ]] || return
  done
}

good_envoy() {
  local version
  version=$("$1" --version 2>/dev/null | sed -n 's|.*/\([0-9][0-9.]*\)/.*|\1|p')
  echo "$version"
  at_least 1.40.0 "$version"
}

good_kubernetes() { # kube-apiserver and the others: not older than the oldest Kubernetes that coxswain supports
  local version
  version=$("$1" --version 2>/dev/null | sed -n 's/^Kubernetes v//p')
  echo "$version"
  at_least 1.33 "$version"
}

good_kubectl() {
  local version
  version=$("$1" version --client 2>/dev/null | sed -n 's/^Client Version: v//p')
  echo "$version"
  at_least 1.33 "$version"
}

good_etcd() {
  local version
  version=$("$1" --version 2>/dev/null | sed -n 's/^etcd Version: //p')
  echo "$version"
  at_least 3.5 "$version"
}

good_helm() {
  local version
  version=$("$1" version --short 2>/dev/null | sed -n 's/^v\([0-9.]*\).*/\1/p')
  echo "$version"
  at_least 3.14 "$version"
}

good_cargo_deny() {
  local version
  version=$("$1" --version 2>/dev/null | sed -n 's/^cargo-deny //p')
  echo "$version"
  at_least 0.18 "$version"
}

good_coredns() {
  local version
  version=$("$1" -version 2>/dev/null | sed -n 's/^CoreDNS-//p')
  echo "$version"
  at_least 1.12 "$version"
}

packages() { # PACKAGE...: Debian packages that are missing are installed, or named in one sentence
  local missing
  command -v dpkg-query > /dev/null || die "This machine has no apt; please install what these Debian packages hold and start again: $*"
  missing=$(for p in "$@"; do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null) == installed ]] || echo "$p"
  done)
  [[ -n $missing ]] || return 0
  ((EUID == 0)) || die "Please install these Debian packages and start again: sudo apt-get install" $missing
  say "apt: installing" $missing
  apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends $missing > /dev/null
}

rust_builds() { # a look at what `cargo build` needs, before it fails in the middle
  command -v cargo > /dev/null || die "cargo is not on PATH: please install Rust by rustup (https://rustup.rs); rust-toolchain.toml picks the version."
  command -v cc > /dev/null || packages gcc libc6-dev # ring and pcre2 bring C
}

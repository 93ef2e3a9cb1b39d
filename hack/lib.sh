# Sourced by the commands beside it: where things lie, how they speak, which versions are good enough.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Real parts live outside the checkout and are kept between runs.
TOOLS=${TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/coxswain-tools}
mkdir -p "$TOOLS/bin"
TOOLS=$(cd "$TOOLS" && pwd)
export TOOLS

say() { printf '%s\n' "$@" >&2; } # one line an argument
die() { say "$@"; exit 1; }

at_least() { # WANTED VERSION: numbers between dots, as sort -V compares them
  [[ -n $2 && $(printf '%s\n' "$1" "$2" | sort -V | head -n 1) == "$1" ]]
}

good() { # NAME EXECUTABLE: prints its version; fails when coxswain or the tests cannot use it
  local name=$1 path=$2 wanted version
  case $name in
    nginx)
      version=$("$path" -v 2>&1 | sed -n 's|.*nginx/\([0-9.]*\).*|\1|p')
      wanted=$(nginx_floor "$version")
      ;;
    envoy) version=$("$path" --version | sed -n 's|.*/\([0-9][0-9.]*\)/.*|\1|p') wanted=1.40.0 ;;
    etcd) version=$("$path" --version | sed -n 's/^etcd Version: //p') wanted=3.5 ;;
    helm) version=$("$path" version --short | sed -n 's/^v\([0-9.]*\).*/\1/p') wanted=3.14 ;;
    # Not older than the oldest Kubernetes that coxswain supports.
    kubectl) version=$("$path" version --client | sed -n 's/^Client Version: v//p') wanted=1.33 ;;
    kube*) version=$("$path" --version | sed -n 's/^Kubernetes v//p') wanted=1.33 ;;
    crossplane) version=$("$path" --version | sed -n 's/^[^0-9]*//p') wanted=0.5.8 ;;
    cargo-deny) version=$("$path" --version | sed -n 's/^cargo-deny //p') wanted=0.18 ;;
  esac 2> /dev/null
  echo "$version"
  at_least "$wanted" "$version" && { [[ $name != nginx ]] || has_modules "$path"; }
}

nginx_floor() { # VERSION: the first of its series without known vulnerabilities; the agent's table is the only one
  local floors
  floors=$(sed -n 's/.*fixed_in: Version(\([0-9]*\), \([0-9]*\), \([0-9]*\)).*/\1.\2.\3/p' "$root/src/agent/nginx/version.rs")
  grep -F "${1%.*}." <<< "$floors" || tail -n 1 <<< "$floors"
}

has_modules() { # EXECUTABLE: an nginx with what rendered configurations name
  local options module
  options=$("$1" -V 2>&1)
  for module in http_ssl http_v2 http_realip http_auth_request; do
    [[ $options == *--with-${module}_module* ]] || return
  done
}

packages() { # PACKAGE...: Debian packages that are missing are installed, or named in one sentence
  local missing
  command -v dpkg-query > /dev/null || die "This machine has no apt; please install what these Debian packages hold and start again: $*"
  missing=$(for p in "$@"; do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null) == installed ]] || echo "$p"
  done)
  [[ -n $missing ]] || return 0
  ((EUID == 0)) || die "Please install these Debian packages and start again: sudo apt-get install ${missing//$'\n'/ }"
  say "apt: installing ${missing//$'\n'/ }"
  apt-get -qq update
  # shellcheck disable=SC2086 # words
  DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends $missing > /dev/null
}

rust_builds() { # a look at what `cargo build` needs, before it fails in the middle
  command -v cargo > /dev/null || die "cargo is not on PATH: please install Rust by rustup (https://rustup.rs); rust-toolchain.toml picks the version."
  command -v cc > /dev/null || packages gcc libc6-dev # ring and pcre2 bring C
}

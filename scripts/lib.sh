# lib.sh: what the scripts share. To be sourced; leaves the caller in the root of the repository.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
ROOT=$PWD
export ROOT

if [ -t 1 ]; then BOLD=$'\e[1m' DIM=$'\e[2m' RED=$'\e[31m' PLAIN=$'\e[0m'; else BOLD= DIM= RED= PLAIN=; fi

say() { printf '%s==>%s %s\n' "$BOLD" "$PLAIN" "$*"; }
fail() {
    printf '%s%s%s\n' "$RED" "$*" "$PLAIN" >&2
    exit 1
}

# True for --help or -h anywhere in the arguments.
wants_help() {
    local argument
    for argument in "$@"; do
        case $argument in -h | --help) return 0 ;; esac
    done
    return 1
}

# Prints the comment at the head of a script, from its second line to the first that is no comment.
show_head() { sed -n '2,${/^#/!q;s/^# \{0,1\}//;p}' "$1"; }

# SwiftPM asks the compiler for colour when it writes to a terminal, and builds all anew when that differs from before.
swift_build() { swift build --no-color-diagnostics "$@"; }

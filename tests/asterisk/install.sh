#!/bin/sh
# Get a real Asterisk (20 or later, with AudioSocket) and SIPp for the tests in this directory.
#
# Both from PATH: nothing to do. Otherwise Debian sid, whose packages are recent enough, goes into a
# chroot at .cache/asterisk/root of this checkout: needs root, about a minute and 600 MB. A second
# run is instant. An interrupted run leaves root.tmp, which the next run throws away. All mounts are
# made in a private mount namespace, so none can stay behind.
set -eu

CACHE=$(cd "$(dirname "$0")/../.." && pwd)/.cache/asterisk
ROOT=$CACHE/root
LOG=$CACHE/install.log
PATH=$PATH:/usr/sbin:/sbin
export DEBIAN_FRONTEND=noninteractive

say() { echo "deps-asterisk: $*"; }

fail() {
    say "$*" >&2
    exit 1
}

# Run a function with its output in the log; show the log's end when any line of it fails.
# (As part of an && or || the function would run on after a failure: `set -e` is off there.)
quietly() {
    say "$1"
    shift
    set +e
    (
        set -e
        "$@"
    ) >>"$LOG" 2>&1 </dev/null
    status=$?
    set -e
    [ $status = 0 ] && return
    tail -n 40 "$LOG" >&2
    fail "failed; the whole log is $LOG"
}

on_path() {
    command -v asterisk >/dev/null && command -v sipp >/dev/null || return 1
    major=$(asterisk -V 2>/dev/null | sed -n 's/^Asterisk \([0-9]*\).*/\1/p')
    [ "${major:-0}" -ge 20 ] || return 1
    dir=$(sed -n 's/^ *astmoddir *=>* *//p' /etc/asterisk/asterisk.conf 2>/dev/null | tail -n 1)
    for dir in "$dir" /usr/lib/asterisk/modules /usr/lib/*/asterisk/modules; do
        [ -e "$dir/res_audiosocket.so" ] && [ -e "$dir/app_audiosocket.so" ] && return
    done
    return 1
}

# The Debian mirror that this machine uses, if it is a Debian machine.
mirror() {
    found=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list \
        /etc/apt/sources.list.d/*.sources 2>/dev/null |
        sed 's/#.*//' | tr ' \t' '\n\n' | grep -E '^https?://.+/debian/?$' | head -n 1) || true
    echo "${found:-http://deb.debian.org/debian}"
}

get_debootstrap() {
    command -v apt-get >/dev/null ||
        fail "no apt-get here: install debootstrap, or Asterisk 20 or later and SIPp, by hand"
    apt-get -o Acquire::Check-Valid-Until=false update -q
    apt-get install -q -y --no-install-recommends debootstrap debian-archive-keyring
}

in_root() { chroot "$ROOT.tmp" env LC_ALL=C "$@"; }

bootstrap() {
    rm -rf --one-file-system "$ROOT.tmp" "$ROOT"
    set -- --variant=minbase
    case $MIRROR in *https:*) set -- "$@" --include=ca-certificates ;; esac
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    [ ! -e $keyring ] || set -- "$@" --keyring=$keyring
    debootstrap "$@" sid "$ROOT.tmp" "$MIRROR"
    echo 'Acquire::Check-Valid-Until "false";' >"$ROOT.tmp/etc/apt/apt.conf.d/90check"
    echo 'force-unsafe-io' >"$ROOT.tmp/etc/dpkg/dpkg.cfg.d/fast"
    printf '#!/bin/sh\nexit 101\n' >"$ROOT.tmp/usr/sbin/policy-rc.d" # start no daemon here
    chmod 755 "$ROOT.tmp/usr/sbin/policy-rc.d"
    cp -L /etc/resolv.conf /etc/hosts "$ROOT.tmp/etc/"
}

add_asterisk() {
    mount -t proc proc "$ROOT.tmp/proc"
    in_root apt-get update -q
    in_root apt-get install -q -y --no-install-recommends asterisk sip-tester
    in_root apt-get clean
    umount "$ROOT.tmp/proc"
}

finish() {
    in_root asterisk -V
    in_root sh -c 'command -v sipp'
    mkdir -p "$ROOT.tmp/mnt"
    mv "$ROOT.tmp" "$ROOT"
}

if on_path; then
    say "$(asterisk -V) and SIPp are on PATH, nothing to do"
    exit 0
fi
if [ -x "$ROOT/usr/sbin/asterisk" ]; then
    say "already in $ROOT"
    exit 0
fi
[ "$(id -u)" = 0 ] || fail "needs root: run 'sudo make deps-asterisk', or install Asterisk 20 or" \
    "later (with app_audiosocket) and SIPp (Debian: asterisk, sip-tester) yourself"

if [ "${IN_NAMESPACE:-}" != yes ]; then
    mkdir -p "$CACHE"
    : >"$LOG"
    command -v debootstrap >/dev/null || quietly "installing debootstrap" get_debootstrap
    exec env IN_NAMESPACE=yes flock "$CACHE/lock" unshare --mount sh "$0"
fi

MIRROR=$(mirror)
proxy=
eval "$(apt-config shell proxy Acquire::http::Proxy 2>/dev/null || true)"
[ -z "$proxy" ] || [ "$proxy" = DIRECT ] || export http_proxy="$proxy"
quietly "unpacking Debian sid (1 of 2)" bootstrap
quietly "installing Asterisk and SIPp (2 of 2)" add_asterisk
quietly "checking" finish
say "$(chroot "$ROOT" asterisk -V) is in $ROOT"

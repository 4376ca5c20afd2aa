# shellcheck shell=bash disable=SC2034
# Sourced by every script here: where things are, and how one component is started and stopped.
set -euo pipefail

LAB=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
# What is slow to make and never changes: outlives the lab, shared by all checkouts.
CACHE=${KDEV_LAB_CACHE:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/kdev-lab}
BIN=$CACHE/bin
# Everything of one running lab. Not under /run: where that is a small tmpfs, images do not fit.
STATE=$(realpath -m "${KDEV_LAB_STATE:-/var/tmp/kdev-lab}")

NODE_IP=172.30.0.1           # carried by the bridge lab-node
SERVICE_CIDR=10.96.0.0/16
POD_CIDR=10.244.0.0/24       # one node, so one block of CLUSTER_CIDR
CLUSTER_CIDR=10.244.0.0/16
API=https://127.0.0.1:6443
FRONT=https://127.0.0.1:7443
ADMIN=$STATE/kubeconfig/admin.kubeconfig
CONTAINERD=$STATE/containerd/containerd.sock
DOCKER_DIR=$STATE/docker
DOCKER_SOCK=$DOCKER_DIR/docker.sock
export DOCKER_HOST=unix://$DOCKER_SOCK

log() { printf '%s\n' "$*" >&2; }
die() { log "${0##*/}: $*"; exit 1; }
kube() { kubectl --kubeconfig "$ADMIN" "$@"; }
lab_ctr() { ctr -a "$CONTAINERD" -n k8s.io "$@"; }

need_root() { [ "$(id -u)" = 0 ] || die "the lab makes bridges, mounts and containers: run it as root"; }

# One script at a time changes the lab (or the cache). The lock is held until the script ends, and a
# script that another one of ours calls does not wait for its own caller.
lock() { # state|cache
  local held=KDEV_LAB_LOCK_$1 file=$STATE.lock fd
  [ "$1" = state ] || { mkdir -p "$CACHE"; file=$CACHE/lock; }
  [ -z "${!held:-}" ] || return 0
  mkdir -p "$(dirname "$file")"
  exec {fd}>"$file"
  flock -n "$fd" || { log "waiting for another run that holds $file"; flock "$fd"; }
  export "$held=$fd"
}
unlocked() { # CMD... : without the locks' descriptors, so that a daemon does not keep them for ever
  local v fd
  for v in KDEV_LAB_LOCK_state KDEV_LAB_LOCK_cache; do
    fd=${!v:-}
    [ -z "$fd" ] || eval "exec $fd>&-" 2>/dev/null || true
    unset "$v"
  done
  exec "$@"
}

# apt-get install of what is missing. Packages that would start a service are told not to: there may
# be no init here, and the lab starts its own.
packages() { # COMMAND=PACKAGE...
  local want=() pair policy=/usr/sbin/policy-rc.d made=
  for pair in "$@"; do
    command -v "${pair%%=*}" >/dev/null || [ -e "${pair%%=*}" ] || want+=("${pair#*=}")
  done
  [ ${#want[@]} -gt 0 ] || return 0
  log "installing ${want[*]}"
  export DEBIAN_FRONTEND=noninteractive
  quietly apt-get -q update
  [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy; chmod +x $policy; made=1; }
  quietly apt-get -o DPkg::Lock::Timeout=300 install -yq --no-install-recommends "${want[@]}" || { [ -z "$made" ] || rm -f $policy; return 1; }
  [ -z "$made" ] || rm -f $policy
}

# Prints a command's output only when it fails.
quietly() {
  local out rc=0
  out=$(mktemp)
  "$@" >"$out" 2>&1 </dev/null || rc=$?
  [ $rc = 0 ] || { log "failed ($rc): $*"; tail -n 40 "$out" >&2; }
  rm -f "$out"
  return $rc
}

wait_for() { # SECONDS WHAT CMD...
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || { log "timed out waiting for $what"; return 1; }
    sleep 0.2
  done
}

# --- components: $STATE/cmd/NAME is the command line, $STATE/pid/NAME the process and its start time

# The cluster's own processes are in a control group of their own, so that `wall` can tell them apart.
CGROUP=/sys/fs/cgroup/unified
[ -d $CGROUP ] || CGROUP=/sys/fs/cgroup
NODE_CGROUP=$CGROUP/kdev-lab
join_node() { # the calling (sub)shell becomes one of the cluster's processes
  [ -e $CGROUP/cgroup.procs ] || die "no cgroup v2 hierarchy at $CGROUP"
  mkdir -p $NODE_CGROUP
  echo $BASHPID >$NODE_CGROUP/cgroup.procs
}

# What stands between a laptop and a cluster: here both are one machine, which could reach every pod
# and Service directly, and so would a test of kdev that kdev had no part in. Only the cluster's own
# processes may open connections to pods; whatever else tries is refused at once.
# By address, not by interface: after kube-proxy's translation this chain still sees the old interface.
WALL_OUTPUT=(-d "$CLUSTER_CIDR" ! -o lo -m conntrack --ctstate NEW -m cgroup ! --path kdev-lab -j REJECT)
WALL_FORWARD=(! -i lab0 -o lab0 -m conntrack --ctstate NEW -j REJECT)
wall() {
  local chain
  mkdir -p $NODE_CGROUP
  # First in each chain: kube-proxy and Docker accept what comes after them. Docker keeps its own
  # chain before the rules that it adds with each network.
  for chain in FORWARD DOCKER-USER; do
    iptables -n -L $chain >/dev/null 2>&1 || continue
    iptables -D $chain "${WALL_FORWARD[@]}" 2>/dev/null || true
    iptables -I $chain "${WALL_FORWARD[@]}"
  done
  iptables -D OUTPUT "${WALL_OUTPUT[@]}" 2>/dev/null || true
  iptables -I OUTPUT "${WALL_OUTPUT[@]}"
}

# In the order they start. The Docker pair is started on its own, by `docker`.
COMPONENTS=(etcd apiserver front controller-manager scheduler containerd kubelet kube-proxy dnsmasq dns-sync)
DOCKER_COMPONENTS=(docker-containerd dockerd)

define() { # NAME CMD... : writes the one command line that both `up` and `ctl` start
  local name=$1
  shift
  mkdir -p "$STATE"/{cmd,pid,log}
  {
    printf '#!/bin/bash\ncd %q || exit 1\nexec' "$STATE"
    printf ' %q' "$@"
    echo
  } >"$STATE/cmd/$name.new"
  chmod +x "$STATE/cmd/$name.new"
  mv "$STATE/cmd/$name.new" "$STATE/cmd/$name"
}

# A process id alone may by now belong to somebody else's process; with its start time it cannot.
started_at() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

alive() { # NAME
  local pid at
  read -r pid at 2>/dev/null <"$STATE/pid/$1" || return 1
  [ -n "$at" ] && [ "$(started_at "$pid")" = "$at" ] && ! grep -q '^State:.Z' "/proc/$pid/status" 2>/dev/null
}

start() { # NAME
  local pid
  alive "$1" && return 0
  [ -x "$STATE/cmd/$1" ] || die "no component $1 here: is the lab up? (known: $(ls "$STATE/cmd" 2>/dev/null | tr '\n' ' '))"
  # The variable marks the process as the lab's: `leftovers` looks for it.
  (join_node; unlocked env -u KDEV_LAB_RUN KDEV_LAB_OWNED="$STATE" setsid "$STATE/cmd/$1") </dev/null >>"$STATE/log/$1.log" 2>&1 &
  pid=$!
  disown "$pid"
  echo "$pid $(started_at "$pid")" >"$STATE/pid/$1"
}

stop() { # NAME [SIGNAL]
  local pid _ signal=${2:-TERM} i
  if alive "$1"; then
    read -r pid _ <"$STATE/pid/$1"
    kill "-$signal" "$pid" 2>/dev/null || true
    for i in $(seq 100); do
      alive "$1" || break
      # etcd and dockerd finish what they do; whoever takes longer than 10 s will not finish.
      [ "$i" -lt 100 ] || { log "$1 did not stop within 10 s: killed"; kill -KILL "$pid" 2>/dev/null || true; }
      sleep 0.1
    done
  fi
  rm -f "$STATE/pid/$1"
}

ready() { # NAME : one look, no waiting
  alive "$1" || return 1
  local https=(curl -sf -m 2 --cacert "$STATE/pki/ca.crt") http=(curl -sf -m 2)
  case $1 in
    etcd) "${http[@]}" http://127.0.0.1:12379/health ;;
    apiserver) "${https[@]}" $API/readyz ;;
    front) "${https[@]}" $FRONT/readyz ;;
    controller-manager) "${http[@]}" http://127.0.0.1:10252/healthz ;;
    scheduler) "${http[@]}" http://127.0.0.1:10251/healthz ;;
    containerd) lab_ctr version ;;
    kubelet) "${http[@]}" http://127.0.0.1:10248/healthz && curl -sk -m 2 "https://$NODE_IP:10250/" ;;
    kube-proxy) "${http[@]}" http://127.0.0.1:10256/healthz ;;
    docker-containerd) ctr -a "$DOCKER_DIR/containerd.sock" version ;;
    dockerd) docker version ;;
    *) true ;;
  esac >/dev/null 2>&1
}
# Not part of `ready`: the kubelet serves port-forward again up to 10 s before the node's state says so.
node_ready() { [ "$(kube get node lab -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}')" = True ]; }

await() { # NAME [SECONDS]
  wait_for "${2:-60}" "$1" ready "$1" || { explain "$1"; return 1; }
}
explain() { # NAME : what its log ends with
  alive "$1" || log "$1 is not running"
  log "--- last lines of $STATE/log/$1.log"
  tail -n 25 "$STATE/log/$1.log" >&2 || true
}

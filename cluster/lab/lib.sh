# shellcheck shell=bash disable=SC2034
# Sourced by every script here: where things are, and how one component is started and stopped.
set -euo pipefail

LAB=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
# What is slow to make and never changes: outlives the lab, shared by all checkouts.
CACHE=${KDEV_LAB_CACHE:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/kdev-lab}
# Today's programs, with a folder `cni` for plugins of containerd and `cli-plugins` for Docker's.
BIN=$CACHE/bin
# What only Kubernetes 1.20 runs on; Debian has the rest of it.
OLD_BIN=$CACHE/bin-1.20
# Everything of one running lab. Not under /run: where that is a small tmpfs, images do not fit.
STATE=$(realpath -m "${KDEV_LAB_STATE:-/var/tmp/kdev-lab}")

# Variants, each a word in the environment: Kubernetes' release, and how kube-proxy sends Services' packets on. Without
# the word, a lab that is up stays what it is.
up_kube='' up_proxy=''
[ ! -f "$STATE/variant" ] || read -r up_kube up_proxy <"$STATE/variant"
KUBE=${KDEV_LAB_KUBE:-${up_kube:-1.37}}
[ "$KUBE" = "$up_kube" ] || up_proxy=''
PROXY=${KDEV_LAB_PROXY:-${up_proxy:-nftables}}
# The old server knows neither nftables nor, as the lab runs it, a second address family.
[ "$KUBE" != 1.20 ] || PROXY=iptables
first=$BIN
[ "$KUBE" != 1.20 ] || first=$OLD_BIN
[[ :$PATH != :$first:* ]] && PATH=$first:$PATH
export PATH KDEV_LAB_KUBE=$KUBE KDEV_LAB_PROXY=$PROXY

NODE_IP=172.30.0.1           # carried by the bridge lab-node
NODE_IP6=fd00:30::1
SERVICE_CIDR=10.96.0.0/16
SERVICE_CIDR6=fd00:10:96::/112
POD_CIDR=10.244.0.0/24       # one node, so one block of CLUSTER_CIDR
POD_CIDR6=fd00:10:244::/64
CLUSTER_CIDR=10.244.0.0/16
CLUSTER_CIDR6=fd00:10:244::/48
API=https://127.0.0.1:6443
ADMIN=$STATE/kubeconfig/admin.kubeconfig
CONTAINERD=$STATE/containerd/containerd.sock
DOCKER_DIR=$STATE/docker
DOCKER_SOCK=$DOCKER_DIR/docker.sock
export DOCKER_HOST=unix://$DOCKER_SOCK
# Compose is a plugin of the client, which looks for it there; the user's own settings stay out of it.
export DOCKER_CONFIG=$DOCKER_DIR/config

# What `build` makes for the cluster and for Docker.
CLUSTER_PROGRAMS=(kube etcd containerd cni coredns router)
[ "$KUBE" != 1.20 ] || CLUSTER_PROGRAMS=(server-1.20 dns-1.20)
DOCKER_PROGRAMS=(containerd engine cli compose)

# COMPONENT:PORT, all on addresses of this machine alone.
PORTS=(etcd:12379 etcd:12380 apiserver:6443 controller-manager:10257 scheduler:10259 kubelet:10248 kubelet:10250
  kube-proxy:10249 kube-proxy:10256 coredns:18181)
# What pods and Services need of the kernel; `down` puts back what was.
SETTINGS=(net.ipv4.ip_forward net.ipv6.conf.all.forwarding net.bridge.bridge-nf-call-iptables net.bridge.bridge-nf-call-ip6tables)

# kube-router's sets of addresses.
SETS='^(inet6:)?KUBE-|^kube-router|^inet6:kube-router'

log() { printf '%s\n' "$*" >&2; }
[[ $KUBE =~ ^1\.(37|20)$ && $PROXY =~ ^(nftables|iptables)$ ]] || { echo "KDEV_LAB_KUBE is 1.37 or 1.20, KDEV_LAB_PROXY nftables or iptables" >&2; exit 1; }
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

# The Debian mirror this machine already uses.
mirror() {
  local uri
  uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Codename: bookworm' | sed -n 1p)
  [ -n "$uri" ] || { quietly apt-get -q update; uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Codename: bookworm' | sed -n 1p); }
  [ -n "$uri" ] || die "no Debian 12 (bookworm) package source is configured here"
  echo "$uri"
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
# A table of its own: nothing that kube-proxy, kube-router or Docker put into theirs can come before it. Its
# chains see packets after kube-proxy's translation and before any other filter.
wall() {
  mkdir -p $NODE_CGROUP
  # nft looks the group up below /sys/fs/cgroup, wherever that hierarchy begins.
  local group=${NODE_CGROUP#/sys/fs/cgroup/}
  nft -f - <<K
table inet kdev-lab
delete table inet kdev-lab
table inet kdev-lab {
  chain output {
    type filter hook output priority filter - 10;
    oifname "lo" accept
    socket cgroupv2 level 1 "$group" accept
    ct state new ip daddr $CLUSTER_CIDR reject
    ct state new ip6 daddr $CLUSTER_CIDR6 reject
  }
  chain forward {
    type filter hook forward priority filter - 10;
    ct state new iifname != "lab0" oifname "lab0" reject
  }
}
K
}

# Takes every packet rule and chain away whose line matches. Each is deleted by itself: whoever else changes the tables
# meanwhile (kube-proxy, dockerd) would lose what it did if they were put back as a whole.
drop_rules() { # PATTERN
  local v i
  for v in iptables ip6tables; do
    command -v $v-save >/dev/null || continue
    for i in 1 2 3; do
      # A rule that went meanwhile fails the lot.
      if $v-save | deletions "$1" | $v-restore --noflush; then break; fi
      [ "$i" -lt 3 ] || return 1
    done
  done
}
deletions() { # PATTERN : what iptables-restore takes away, of what iptables-save shows
  awk -v pattern="$1" '
    /^\*/ { table = $0; flush = rules = chains = "" }
    /^:/ && substr($1, 2) ~ pattern { name = substr($1, 2); own[table, name] = 1; flush = flush "-F " name "\n"; chains = chains "-X " name "\n" }
    /^-A/ && $0 ~ pattern && !((table, $2) in own) { sub(/^-A/, "-D"); rules = rules $0 "\n" }
    /^COMMIT/ && flush rules != "" { printf "%s\n%s%s%sCOMMIT\n", table, flush, rules, chains }'
}

# In the order they start. The Docker pair is started on its own, by `docker`.
COMPONENTS=(etcd apiserver controller-manager scheduler containerd kubelet kube-proxy coredns)
DOCKER_COMPONENTS=(docker-containerd dockerd)
# Started by a script of its own (`policies`, `corp`, `engines`), and stopped by it again.
EXTRA_COMPONENTS=(kube-router squid debian-containerd debian-dockerd)

define() { # NAME CMD... : writes the one command line that both `up` and `ctl` start
  local name=$1
  shift
  mkdir -p "$STATE"/{cmd,pid,log}
  {
    printf '#!/bin/bash\ncd %q || exit 1\nexport PATH=%q\nexec' "$STATE" "$PATH"
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
  # The variable marks the process as the lab's: `leftovers` looks for it. A folder of whoever restarts it may be gone
  # before it ends, and runc would not start anything there.
  (join_node; unlocked env -u KDEV_LAB_RUN -u XDG_RUNTIME_DIR KDEV_LAB_OWNED="$STATE" setsid "$STATE/cmd/$1") </dev/null >>"$STATE/log/$1.log" 2>&1 &
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

# What a kubelet asks first. containerd answers its own clients before it answers kubelets, later the more pods it finds,
# and a kubelet that is told "not initialized yet" ends.
serves_kubelets() {
  printf '\0\0\0\0\0' | curl -s -m 2 --http2-prior-knowledge --unix-socket "$CONTAINERD" -H 'content-type: application/grpc' \
    -H 'te: trailers' --data-binary @- -D - -o /dev/null http://localhost/runtime.v1.RuntimeService/Version |
    grep -F 'grpc-status: 0' >/dev/null
}
ready() { # NAME : one look, no waiting
  alive "$1" || return 1
  local https=(curl -sf -m 2 --cacert "$STATE/pki/ca.crt") http=(curl -sf -m 2)
  case $1 in
    etcd) "${http[@]}" http://127.0.0.1:12379/health ;;
    apiserver) "${https[@]}" $API/readyz ;;
    controller-manager) curl -skf -m 2 https://127.0.0.1:10257/healthz ;;
    scheduler) curl -skf -m 2 https://127.0.0.1:10259/healthz ;;
    containerd) lab_ctr version && serves_kubelets ;;
    kubelet) "${http[@]}" http://127.0.0.1:10248/healthz && curl -sk -m 2 "https://$NODE_IP:10250/" ;;
    kube-proxy) "${http[@]}" http://127.0.0.1:10256/healthz ;;
    coredns) "${http[@]}" http://127.0.0.1:18181/ready ;;
    kube-router) "${http[@]}" http://127.0.0.1:10244/healthz ;;
    docker-containerd) ctr -a "$DOCKER_DIR/containerd.sock" version ;;
    dockerd) docker version ;;
    debian-containerd) ctr -a "$STATE/engines/containerd.sock" version ;;
    debian-dockerd) DOCKER_HOST=unix://$STATE/engines/docker.sock docker version ;;
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

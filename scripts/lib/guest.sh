#!/usr/bin/env bash
# Runs inside the virtual machine of scripts/rdma-vm, as root; never on its own.
#
# Usage: guest.sh RUN_DIR, where RUN_DIR holds `cwd`, `command` (NUL-separated words) and
# `environment` (NUL-separated NAME=value), and receives `ended`.

set -euo pipefail

RUN_DIR=$1
NO_RAILS=97

# Tells the host that the exit status is ours and not that of a machine that broke.
mount -t tmpfs tmpfs /mnt
mkdir /mnt/run
mount -t 9p -o version=9p2000.L,trans=virtio,access=any rdma_vm_run /mnt/run
trap 'touch /mnt/run/ended' EXIT

no_rails() {
  printf 'rdma-vm: no RDMA rails in the guest: %s\n' "$*" >&2
  rdma link >&2 || true
  exit "$NO_RAILS"
}

# The root that virtme-ng mounts asks the host again for every path, which makes one `import numpy`
# thousands of slow round trips. This second view of the same files keeps what it has once read.
# Writes go to memory, except those below the working directory, which reach the host.
mount_cached_root() {
  local cwd=$1 cached=version=9p2000.L,trans=virtio,access=any,msize=512000,cache=loose
  mkdir /mnt/host /mnt/upper /mnt/work /mnt/root
  mount -t 9p -o "ro,$cached" rdma_vm_root /mnt/host
  mount -t overlay -o lowerdir=/mnt/host,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root
  local folder
  for folder in proc sys dev run; do mount --rbind "/$folder" "/mnt/root/$folder"; done
  mount -t 9p -o "rw,$cached" rdma_vm_cwd "/mnt/root$cwd"
}

# Two rails, one at each end of a virtual cable: rxe0 on 10.0.0.1 and rxe1 on 10.0.0.2.
make_rails() {
  modprobe -a veth rdma_rxe ib_uverbs rdma_ucm || no_rails "the kernel has no soft-RoCE modules"
  ip link set lo up
  ip link add v0 type veth peer name v1
  # Both ends of the cable are this machine. A frame that comes in with one of our own addresses as
  # its source looks forged, and is dropped unless accept_local says otherwise; ARP must answer for
  # the address of the cable's own end only, and use it.
  local name
  for name in all v0 v1; do
    echo 0 >"/proc/sys/net/ipv4/conf/$name/rp_filter"
    echo 1 >"/proc/sys/net/ipv4/conf/$name/accept_local"
    echo 1 >"/proc/sys/net/ipv4/conf/$name/arp_ignore"
    echo 2 >"/proc/sys/net/ipv4/conf/$name/arp_announce"
  done
  ip addr add 10.0.0.1/24 dev v0
  ip addr add 10.0.0.2/24 dev v1
  ip link set v0 up mtu 4200 # 4200: leaves room for a path MTU of 4096
  ip link set v1 up mtu 4200
  rdma link add rxe0 type rxe netdev v0 || no_rails "rxe0 cannot be added"
  rdma link add rxe1 type rxe netdev v1 || no_rails "rxe1 cannot be added"
}

await_rails() {
  local rail _
  for rail in rxe0 rxe1; do
    for _ in $(seq 50); do
      grep -q ACTIVE "/sys/class/infiniband/$rail/ports/1/state" 2>/dev/null && continue 2
      sleep 0.1
    done
    no_rails "$rail is not ACTIVE"
  done
}

ulimit -l unlimited
ulimit -n 65536
cwd=$(cat "$RUN_DIR/cwd")
mapfile -d '' -t words <"$RUN_DIR/command"
mapfile -d '' -t environment <"$RUN_DIR/environment"

make_rails
mount_cached_root "$cwd"
await_rails

status=0
chroot /mnt/root /usr/bin/env -i "${environment[@]}" \
  /bin/bash -c 'cd -- "$1" && shift && exec "$@"' rdma-vm "$cwd" "${words[@]}" || status=$?
sync # the cached view writes back late
exit "$status"

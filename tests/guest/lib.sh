# Shared by the scripts that run in a guest. What they print begins with the script's name, for the test to find.

# runs_on CPU: whether a process that is bound to CPU runs there; field 39 of its stat says where it last ran.
runs_on() {
    mask=$(printf %x $((1 << $1)))
    taskset "$mask" sh -c 'read -r stat </proc/self/stat; set -- ${stat##*) }; shift 36; [ "$1" = '"$1"' ]'
}

cpus() {
    ls -d /sys/devices/system/cpu/cpu[0-9]* | sed 's/.*cpu//' | sort -n
}

# nic [DEVICE]: the name of that virtio device's interface, or of the first network card's.
nic() {
    for nic in /sys/bus/virtio/drivers/virtio_net/${1:-virtio*}/net/*; do
        echo "${nic##*/}"
        return
    done
}

# address ADDRESS [DEVICE]: gives it to the interface, and waits until the interface says that it has a link.
address() {
    card="$(nic "$2")"
    ip link set "$card" up
    ip addr add "$1/24" dev "$card"
    until [ "$(cat "/sys/class/net/$card/carrier" 2>/dev/null)" = 1 ]; do sleep 1; done
}

# answers ADDRESS: whether it answers a ping within a minute.
answers() {
    tries=0
    until ping -c 1 -W 1 "$1" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 60 ] || return 1
    done
}

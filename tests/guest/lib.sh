# Shared by the scripts that run in a guest. What they print begins with the script's name, for the test to find.

# runs_on CPU: whether a process that is bound to CPU runs there; field 39 of its stat says where it last ran.
runs_on() {
    mask=$(printf %x $((1 << $1)))
    taskset "$mask" sh -c 'read -r stat </proc/self/stat; set -- ${stat##*) }; shift 36; [ "$1" = '"$1"' ]'
}

cpus() {
    ls -d /sys/devices/system/cpu/cpu[0-9]* | sed 's/.*cpu//' | sort -n
}

# nic: the name of the first virtio network interface.
nic() {
    for nic in /sys/bus/virtio/drivers/virtio_net/virtio*/net/*; do
        echo "${nic##*/}"
        return
    done
}

# address ADDRESS: gives it to the interface, and waits until the interface says that it has a link.
address() {
    ip link set "$(nic)" up
    ip addr add "$1/24" dev "$(nic)"
    until [ "$(cat "/sys/class/net/$(nic)/carrier" 2>/dev/null)" = 1 ]; do sleep 1; done
}

# answers ADDRESS: whether it answers a ping within a minute.
answers() {
    tries=0
    until ping -c 1 -W 1 "$1" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 60 ] || return 1
    done
}

# net-rebind.sh ADDRESS PEER ROUNDS: of each card in turn, takes the interface down and up, and the driver off the device and back; each
# time the peer has to answer again.
. /tests/lib.sh
for device in /sys/bus/virtio/drivers/virtio_net/virtio*; do
    device="${device##*/}"
    card="$(nic "$device")"
    address "$1" "$device"
    answers "$2" || echo "rebind: FAIL no answer at $card"
    for round in $(seq "$3"); do
        ip link set "$card" down
        ip link set "$card" up
    done
    answers "$2" && echo "rebind: $card answered after $3 times down and up"
    for round in $(seq "$3"); do
        echo "$device" >/sys/bus/virtio/drivers/virtio_net/unbind
        echo "$device" >/sys/bus/virtio/drivers/virtio_net/bind
    done
    address "$1" "$device"
    answers "$2" && echo "rebind: $card answered after $3 times unbound and bound"
    # The next one has the address.
    ip link set "$card" down
    ip addr del "$1/24" dev "$card"
done

# net-rebind.sh ADDRESS PEER ROUNDS: takes the interface down and up, and the driver off the device and back; each time the peer has to
# answer again.
. /tests/lib.sh
address "$1"
answers "$2" || echo "rebind: FAIL no answer"
for round in $(seq "$3"); do
    ip link set "$(nic)" down
    ip link set "$(nic)" up
done
answers "$2" && echo "rebind: answered after $3 times down and up"
for device in /sys/bus/virtio/drivers/virtio_net/virtio*; do device="${device##*/}"; done
for round in $(seq "$3"); do
    echo "$device" >/sys/bus/virtio/drivers/virtio_net/unbind
    echo "$device" >/sys/bus/virtio/drivers/virtio_net/bind
done
address "$1"
answers "$2" && echo "rebind: answered after $3 times unbound and bound"

# disk-rebind.sh ROUNDS: takes the driver off the disk and back; each time the disk has to hold the same.
for device in /sys/bus/virtio/drivers/virtio_blk/virtio*; do device="${device##*/}"; done
sum() {
    dd if=/dev/vda bs=64k count=32 2>/dev/null | md5sum
}
before=$(sum)
same=0
for round in $(seq "$1"); do
    echo "$device" >/sys/bus/virtio/drivers/virtio_blk/unbind
    [ ! -e /dev/vda ] || echo "rebind: FAIL the disk is still there"
    echo "$device" >/sys/bus/virtio/drivers/virtio_blk/bind
    [ "$(sum)" != "$before" ] || same=$((same + 1))
done
echo "rebind: $same times the same"

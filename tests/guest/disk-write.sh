# disk-write.sh MIB: writes a file of so many MiB in random order, each block with its place and checksum in it, and flushes it; then
# writes on without end, and waits to be killed.
rm -f /root/flushed /root/unflushed
fio --eta=never --name=flushed --filename=/root/flushed --rw=randwrite --bs=1M --size="$1"M --randrepeat=1 --verify=xxhash --do_verify=0 \
    --end_fsync=1 --output=/tmp/fio || cat /tmp/fio
sync
echo "disk: flushed"
while :; do dd if=/dev/zero of=/root/unflushed bs=64k count=256 2>/dev/null; done

# disk-verify.sh MIB: whether each block that disk-write.sh flushed is there.
fio --eta=never --name=flushed --filename=/root/flushed --rw=randwrite --bs=64k --size="$1"M --randrepeat=1 --verify=crc32c --verify_only \
    --output=/tmp/fio && echo "disk: verified" || cat /tmp/fio

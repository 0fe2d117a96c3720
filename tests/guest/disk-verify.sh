# disk-verify.sh MIB: whether each block that disk-write.sh flushed is there.
fio --eta=never --name=flushed --filename=/root/flushed --rw=randwrite --bs=1M --size="$1"M --randrepeat=1 --verify=xxhash --verify_only \
    --output=/tmp/fio && echo "disk: verified" || cat /tmp/fio

# Whether the disk can be read and not written.
echo "readonly: $(cat /sys/block/vda/ro)"
dd if=/dev/vda of=/dev/null bs=64k count=16 2>/dev/null && echo "readonly: reads"
dd if=/dev/zero of=/dev/vda bs=4k count=1 2>/dev/null || echo "readonly: does not write"

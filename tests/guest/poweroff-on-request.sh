# Waits to be powered off. The kernel answers the power button by running /sbin/poweroff; busybox's asks init, which
# is a script here, so it has to be told to do it itself.
mkdir -p /sbin
printf '#!/bin/sh\necho "poweroff: asked"\nexec busybox poweroff -f\n' >/sbin/poweroff
chmod +x /sbin/poweroff
exec >/dev/console 2>&1
echo "poweroff: waiting"
sleep 600

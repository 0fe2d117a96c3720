# power-button.sh obey|ignore: sets what the power button does, says so and waits. The kernel answers the button by
# running /sbin/poweroff, and powers off by itself if there is none. busybox's asks init, which is a script here, so it
# has to be told to do it itself.
mkdir -p /sbin
case $1 in
obey) action='exec busybox poweroff -f' ;;
ignore) action=: ;;
esac
printf '#!/bin/sh\necho "power-button: pressed" >/dev/console\n%s\n' "$action" >/sbin/poweroff
chmod +x /sbin/poweroff
echo "power-button: waiting"
sleep 600

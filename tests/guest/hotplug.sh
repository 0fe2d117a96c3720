# Takes each secondary CPU offline and back, twice; each time it has to run a process again.
. /tests/lib.sh
for round in 1 2; do
    for cpu in $(cpus); do
        [ "$cpu" = 0 ] && continue
        online=/sys/devices/system/cpu/cpu$cpu/online
        echo 0 >$online || echo "hotplug: FAIL $cpu does not go offline"
        grep -q "^processor.*: $cpu\$" /proc/cpuinfo && echo "hotplug: FAIL $cpu is in cpuinfo"
        echo 1 >$online || echo "hotplug: FAIL $cpu does not come online"
        runs_on "$cpu" && echo "hotplug: round $round, $cpu came back"
    done
done
echo "hotplug: done, online $(cat /sys/devices/system/cpu/online)"

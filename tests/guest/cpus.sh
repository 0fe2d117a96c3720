# Which CPUs are online, and whether each of them runs a process; which are threads of one core.
. /tests/lib.sh
echo "cpus: online $(cat /sys/devices/system/cpu/online)"
echo "cpus: in cpuinfo $(grep -c '^processor' /proc/cpuinfo)"
for cpu in $(cpus); do
    runs_on "$cpu" && echo "cpus: $cpu ran a process"
    echo "cpus: $cpu shares a core with $(cat /sys/devices/system/cpu/cpu$cpu/topology/thread_siblings_list)"
done

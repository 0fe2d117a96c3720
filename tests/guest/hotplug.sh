# Takes each secondary CPU offline and back, ROUNDS times or twice; each time it has to run a process again.
#
# Meanwhile RCU's thread stays on another secondary CPU, where there is one. A CPU that dies holds one of RCU's locks while it
# waits for the first CPU to take an interrupt; RCU's thread waits for that lock with interrupts off. On one and the same
# first CPU that is a deadlock, unless the interrupt was taken before, as it is by any processor that has LPCR[MER] (docs/lab.md).
. /tests/lib.sh

# keep_rcu_off CPU: lets RCU's thread run on one secondary CPU that is not CPU.
keep_rcu_off() {
    for other in $(cpus); do
        if [ "$other" != 0 ] && [ "$other" != "$1" ]; then
            taskset -p $(printf %x $((1 << other))) $rcu >/dev/null || echo "hotplug: FAIL RCU stays where it is"
            return
        fi
    done
}

rcu=$(grep -lx 'rcu_preempt\|rcu_sched' /proc/[0-9]*/comm | sed 's,/proc/,,; s,/comm,,')
round=0
while [ $round -lt ${ROUNDS:-2} ]; do
    round=$((round + 1))
    for cpu in $(cpus); do
        [ "$cpu" = 0 ] && continue
        keep_rcu_off "$cpu"
        online=/sys/devices/system/cpu/cpu$cpu/online
        echo 0 >$online || echo "hotplug: FAIL $cpu does not go offline"
        grep -q "^processor.*: $cpu\$" /proc/cpuinfo && echo "hotplug: FAIL $cpu is in cpuinfo"
        echo 1 >$online || echo "hotplug: FAIL $cpu does not come online"
        runs_on "$cpu" && echo "hotplug: round $round, $cpu came back"
    done
done
echo "hotplug: done, online $(cat /sys/devices/system/cpu/online)"

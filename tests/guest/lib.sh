# Shared by the scripts that run in a guest. What they print begins with the script's name, for the test to find.

# runs_on CPU: whether a process that is bound to CPU runs there; field 39 of its stat says where it last ran.
runs_on() {
    mask=$(printf %x $((1 << $1)))
    taskset "$mask" sh -c 'read -r stat </proc/self/stat; set -- ${stat##*) }; shift 36; [ "$1" = '"$1"' ]'
}

cpus() {
    ls -d /sys/devices/system/cpu/cpu[0-9]* | sed 's/.*cpu//' | sort -n
}

# net-client.sh ADDRESS SERVER MIB: what a network between two guests has to do: pings, a stream in each direction, and a file of so
# many MiB, whose checksum it prints.
. /tests/lib.sh
address "$1"
answers "$2" || echo "net: FAIL no answer"
# Not one packet may be lost: there is but a bridge between.
ping -c 50 -i 0.05 -W 10 "$2" | grep -q ' 0% packet loss' && echo "net: pings came back"
ping -c 50 -i 0.05 -W 10 -s 8000 "$2" | grep -q ' 0% packet loss' && echo "net: fragments came back"
iperf3 --client "$2" --time 3 >/tmp/iperf3 2>&1 && echo "net: iperf3 sent" || cat /tmp/iperf3
iperf3 --client "$2" --time 3 --reverse >/tmp/iperf3 2>&1 && echo "net: iperf3 received" || cat /tmp/iperf3
head -c "$3"M /dev/urandom >/tmp/sent
echo "net: sent $(sha256sum </tmp/sent)"
nc -N "$2" 7000 </tmp/sent && echo "net: done"

# net-server.sh ADDRESS: answers what net-client.sh asks: pings, iperf3, and one file, whose checksum it prints. Ends with the file.
. /tests/lib.sh
address "$1"
iperf3 --server --daemon
echo "net: serving at $1"
nc -l 7000 >/tmp/received
echo "net: received $(sha256sum </tmp/received)"

#!/bin/sh
# First process of a real guest. Takes its vNICs from words of the kernel's command line:
#   nic=MAC[,mtu=N][,ip=ADDR/LEN...][,gw=ADDR...][,off][,vlan=ID[,ip=ADDR/LEN...]...]
# A vNIC without ip=, vlan= or off asks DHCP, and so does one that is plugged in later.
export PATH=/bin HOME=/ TERM=dumb
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
exec </dev/null >/tmp/init.log 2>&1
dmesg -n 1
while read -r module; do insmod "/modules/$module.ko"; done </modules/order

name=guest
mkdir -p /run/up
for word in $(cat /proc/cmdline); do
	case $word in
	name=*) name=${word#name=} ;;
	nic=*) echo "${word#nic=}" >>/run/nics ;;
	esac
done
hostname "$name"
echo "127.0.0.1 localhost $name" >/etc/hosts
ip link set lo up
for conf in all default; do echo 0 >/proc/sys/net/ipv6/conf/$conf/accept_dad; done

# plug DEVICE: configure one vNIC, once
plug() {
	device=$1 current=$1 dhcp=yes
	: >"/run/up/$device"
	ip link set "$device" up
	spec=$(grep -i "^$(cat "/sys/class/net/$device/address")" /run/nics 2>/dev/null | tail -n 1)
	for item in $(echo "$spec" | tr , ' '); do
		value=${item#*=}
		case $item in
		mtu=*) ip link set "$device" mtu "$value" ;;
		vlan=*)
			dhcp= current=$device.$value
			ip link add link "$device" name "$current" type vlan id "$value"
			ip link set "$current" up
			;;
		ip=*) dhcp= && ip addr add "$value" dev "$current" ;;
		gw=*:*) ip -6 route add default via "$value" dev "$current" ;;
		gw=*) ip route add default via "$value" dev "$current" ;;
		off) dhcp= ;;
		esac
	done
	if [ "$dhcp" ]; then
		udhcpc -f -i "$device" -s /bin/dhcp-event -x "hostname:$name" -O mtu -O search -O staticroutes \
			-t 10 -T 1 -A 1 >/dev/null 2>&1 &
		echo $! >"/run/dhcp.$device"
	fi
}

# answer ID CODE: send what the last command wrote, so that noise on the line cannot pass for it
answer() {
	printf '\n@%s begin %s %s\n' "$1" "$2" "$(md5sum </tmp/out | cut -c1-32)"
	base64 /tmp/out | sed "s/^/@$1 + /"
	printf '@%s end\n' "$1"
}

# The console: lines "@ping ID", "@run ID SECONDS BASE64", "@again ID"; any other line is run as a person's command.
console() {
	stty -echo -icanon -icrnl -opost
	while IFS= read -r line; do
		set -f
		set -- $line
		set +f
		case $1 in
		@ping) printf '\n@%s pong\n' "$2" ;;
		@run)
			printf %s "$4" | base64 -d >/tmp/command
			timeout "$3" sh /tmp/command </dev/null >/tmp/out 2>&1
			code=$?
			answer "$2" $code
			;;
		@again) answer "$2" "$code" ;;
		*) eval "$line" ; printf '%s# ' "$name" ;;
		esac
	done
}

mkdir -p /www /etc/acpi/PWRF
echo "$name" >/www/index.html
printf '#!/bin/sh\npoweroff -f\n' >/etc/acpi/PWRF/00000080
chmod +x /etc/acpi/PWRF/00000080
acpid -l /dev/null
httpd -h /www
nc -ll -p 7 -e /bin/cat &

for device in $(cd /sys/class/net && ls -d eth* 2>/dev/null); do plug "$device"; done
(while :; do console </dev/ttyS0 >/dev/ttyS0 2>&1; done) &

while :; do
	for device in $(cd /sys/class/net && ls -d eth* 2>/dev/null); do
		case $device in *.*) continue ;; esac
		[ -e "/run/up/$device" ] || plug "$device"
	done
	for mark in /run/up/*; do
		device=${mark##*/}
		[ -e "/sys/class/net/$device" ] && continue
		rm -f "$mark"
		[ -e "/run/dhcp.$device" ] && kill "$(cat "/run/dhcp.$device")" 2>/dev/null
		rm -f "/run/dhcp.$device"
	done
	sleep 0.5
done

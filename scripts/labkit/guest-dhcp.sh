#!/bin/sh
# What udhcpc calls with an event; options are in variables of their names.
case $1 in
deconfig) ip -4 addr flush dev "$interface" ;;
bound | renew)
	ip -4 addr flush dev "$interface"
	[ "$mtu" ] && ip link set "$interface" mtu "$mtu"
	ip addr add "$ip/${mask:-24}" dev "$interface"
	for gateway in $router; do
		ip route add "$gateway" dev "$interface" 2>/dev/null
		ip route add default via "$gateway" dev "$interface" && break
	done
	set -- $staticroutes
	while [ $# -ge 2 ]; do
		if [ "$2" = 0.0.0.0 ]; then ip route add "$1" dev "$interface"; else ip route add "$1" via "$2" dev "$interface"; fi
		shift 2
	done
	: >/etc/resolv.conf
	[ "$search$domain" ] && echo "search ${search:-$domain}" >>/etc/resolv.conf
	for server in $dns; do echo "nameserver $server" >>/etc/resolv.conf; done
	env | grep -E '^(ip|mask|router|dns|domain|search|mtu|lease|serverid|staticroutes|hostname|siaddr|boot_file)=' >"/run/lease.$interface"
	;;
esac
exit 0

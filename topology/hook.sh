#!/bin/sh
# fleetswitch's hook for libvirt: reports the vNICs of this host to the controller. Printed by `fleetswitch host hook`.
#
# Install, as root on the host. libvirt runs what is in these folders beside its other hooks:
#
#   for kind in qemu network; do install -D -m 755 FILE /etc/libvirt/hooks/$kind.d/fleetswitch; done
#   systemctl restart libvirtd      # it looks for hooks when it starts; guests keep running and are reported
#   /etc/libvirt/hooks/network.d/fleetswitch - mark      # from now on the controller goes by the reports
#
# (With libvirt's modular daemons restart virtqemud and virtnetworkd.) Take away:
#
#   rm /etc/libvirt/hooks/qemu.d/fleetswitch /etc/libvirt/hooks/network.d/fleetswitch
#   ovs-vsctl remove Bridge BRIDGE external_ids fleetswitch-hook      # from now on OVSDB alone is believed
#
# It speaks to nobody but this host's ovsdb-server, where the controller reads. Whatever fails, and when it takes too
# long, the guest passes: a vNIC that the controller does not know is kept out by flows. It never writes to its standard
# output, which libvirt would take for a guest's XML. On https://libvirt.org/hooks.html: who is called when, with what.

BRIDGE=br-int
REFUSE=no
VERSION=1
SECONDS_AT_MOST=0.15
SECONDS_LATE=10  # of a second attempt, for which nobody waits
LONGEST=65536    # characters of a report: the system hands a program arguments of 131072 at most
LONGEST_XML=262144

export PATH="${PATH:-/usr/bin}:/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin"
set -f

# Tell the controller, in one transaction: that there is a hook, and what else the arguments say.
tell() {
	ovs-vsctl --no-wait --bare --timeout="$SECONDS_LATE" \
		-- set Bridge "$BRIDGE" "external_ids:fleetswitch-hook=\"$VERSION $REFUSE\"" "$@"
}

# $xml as a value for OVSDB; fails when there is none, or when it is too long.
pack() {
	[ "${#xml}" -le "$LONGEST_XML" ] && packed=$(printf '%s\n' "$xml" | gzip -c | base64 -w0) &&
		[ "$packed" ] && [ "${#packed}" -le "$LONGEST" ]
}

# A guest starts, or libvirtd comes back to it: its XML goes to each of its interfaces on the bridge, and away with them.
guest() {
	words=$(printf '%s\n' "$xml" | sed -n "/^    <interface /,/^    <\/interface>/{
		s/^    <interface .*/interface/p
		s/^      <source .*bridge='\([^' ]*\)'.*/bridge=\1/p
		s/^      <target dev='\([^' ]*\)'.*/tap=\1/p
	}")
	pack || packed=''
	here=no
	set --
	for word in $words; do
		case $word in
		interface) here=no ;;
		"bridge=$BRIDGE") here=yes ;;
		tap=*)
			[ $here = no ] ||
				set -- "$@" -- --if-exists set Interface "${word#tap=}" "external_ids:fleetswitch-xml=\"$packed\""
			;;
		esac
	done
	[ $# -gt 0 ] || return 0
	[ "$packed" ] || set --
	tell "$@" >/dev/null
}

# A vNIC is about to be plugged into network $1, or was unplugged: the only call that there is for one that a running
# guest gets.
port() {
	uuid='' mac='' group='' plug=''
	for word in $(printf '%s\n' "$xml" | sed -n "/^  <networkport>/,\${
		s/^      <uuid>\([0-9a-f-]*\)<.*/uuid=\1/p
		s/^    <mac address='\([0-9a-f:]*\)'.*/mac=\1/p
		s/^    <group>\([^< ]*\)<.*/group=\1/p
		s/^    <plug .*bridge='\([^' ]*\)'.*/plug=\1/p
	}"); do
		case $word in
		uuid=*) uuid=${word#*=} ;;
		mac=*) mac=${word#*=} ;;
		group=*) group=${word#*=} ;;
		plug=*) plug=${word#*=} ;;
		esac
	done
	[ "$plug" = "$BRIDGE" ] && [ "$uuid" ] && [ "$mac" ] || return 0
	key="\"fleetswitch-port-$uuid-$mac\""
	if [ "$operation" = port-deleted ]; then
		tell -- remove Bridge "$BRIDGE" external_ids "$key" >/dev/null
	elif ! pack; then
		tell >/dev/null
	elif [ $REFUSE = no ]; then
		tell -- set Bridge "$BRIDGE" "external_ids:$key=\"$packed\"" >/dev/null
	else
		# One line each: the bridge's controllers, those that are connected, such a vNIC if it is there already (libvirtd
		# came back), and the networks that the controller knows.
		judge "$1" "$(tell -- set Bridge "$BRIDGE" "external_ids:$key=\"$packed\"" \
			-- get Bridge "$BRIDGE" controller \
			-- --columns=_uuid find Controller is_connected=true \
			-- --columns=name find Interface "external_ids:vm-id=$uuid" "external_ids:attached-mac=\"$mac\"" \
			-- --if-exists get Bridge "$BRIDGE" external_ids:fleetswitch-networks)"
	fi
}

# Refuse the vNIC, with REFUSED and the reason as output, when network $1 or its portgroup is not among those that the
# controller knows, and it is there to ask.
REFUSED=99
judge() {
	network=$1 controllers='' connected=no known='' told=no
	IFS='
'
	# shellcheck disable=SC2086 # it is to be split, at its lines
	set -- $2
	for line; do
		case $line in
		'['*) controllers=$line ;;
		'"'*) known=${line#?} known=${known%?} told=yes ;;
		????????-????-????-????-????????????) case $controllers in *"$line"*) connected=yes ;; esac ;;
		*) return 0 ;;
		esac
	done
	[ $connected = yes ] && [ $told = yes ] || return 0
	IFS=' '
	groups=''
	for profile in $known; do
		case $profile in
		"$network:${group:-${profile#*:}}") return 0 ;;
		"$network:"*) groups="$groups ${profile#*:}" ;;
		esac
	done
	if [ "$groups" ]; then
		printf '%s\n' "fleetswitch: vNIC $mac: network $network has no portgroup $group; it has:$groups"
	else
		printf '%s\n' "fleetswitch: vNIC $mac: there is no network $network; see: fleetswitch get networks"
	fi
	exit $REFUSED
}

# The work itself, with what libvirt handed over as input.
work() {
	xml=$(cat)
	case $xml in
	'<domain'*) guest ;;
	'<hookData'*) case $operation in port-*) port "$1" ;; esac ;;
	esac
	exit 0
}

# The work in a process of its own, which is killed, with all that it has started, after $seconds.
within() {
	printf '%s\n' "$xml" | FLEETSWITCH_HOOK=work timeout -s KILL "$seconds" sh "$0" "$@"
}

operation=${2-}
case $operation in
start | reconnect | port-created | port-deleted) ;;
mark)
	tell
	exit
	;;
*) exit 0 ;;
esac

exec 3>&2 2>/dev/null # what a tool, or the shell, has to say is no business of libvirt's
[ "${FLEETSWITCH_HOOK-}" != work ] || work "$@" 3>&-

# Whatever hangs (the database, a disk, a busy host), the guest goes on after that time. What was too late is done once
# more meanwhile: a busy host is no host without a hook. It must not hold the outputs that libvirt reads to their end.
xml=$(cat)
seconds=$SECONDS_AT_MOST
said=$(within "$@" 3>&-)
case $? in
"$REFUSED")
	printf '%s\n' "$said" >&3
	exit 1
	;;
137)
	seconds=$SECONDS_LATE
	if [ "$operation" != port-deleted ]; then (within "$@") >/dev/null 3>&- & fi
	;;
esac
exit 0

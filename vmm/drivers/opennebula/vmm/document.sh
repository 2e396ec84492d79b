# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=sh
# From a VM's XML to the configuration document of a machine. A tenant writes most of the values: each is checked against what it may
# be, and goes into the document as a JSON string, never into arguments. Nothing of it is a path, a pattern or shell code.
# shellcheck source=common.sh
. "${0%/*}/common.sh"

MAX_XML_BYTES=1048576
work=$(mktemp -d) || exit 1
taps=
finish() {
    # shellcheck disable=SC2086 # words
    for tap in $taps; do $SUDO ip link delete dev "$tap" 2> /dev/null; done
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' HUP INT TERM

# read_vm: the VM's XML from standard input, alone or in what OpenNebula passes to an action.
read_vm() {
    command -v xmllint > /dev/null || fail 'xmllint: not found; install libxml2-utils (libxml2 on RPM systems)'
    xml=$work/vm.xml
    head -c $((MAX_XML_BYTES + 1)) > "$xml"
    [ "$(wc -c < "$xml")" -le "$MAX_XML_BYTES" ] || fail "VM XML: more than $MAX_XML_BYTES bytes"
    xmllint --nonet --noout "$xml" 2> /dev/null || fail 'VM XML: not well-formed'
    vm=/VM
    [ "$(count /VMM_DRIVER_ACTION_DATA/VM)" = 0 ] || vm=/VMM_DRIVER_ACTION_DATA/VM
    id=$(value "$vm/ID")
    is_number "$id" || fail "VM XML: /VM/ID '$id': not a number"
}

# value XPATH: the text of the first node. The paths are fixed, or have checked numbers in them. Entities are not expanded.
value() { xmllint --nonet --xpath "string($1)" "$xml" 2> /dev/null; }
count() { xmllint --nonet --xpath "count($1)" "$xml" 2> /dev/null; }

# json TEXT: as a JSON string. XML has no control characters but these three.
json() {
    printf '"'
    printf '%s' "$1" | sed 's/\\/\\\\/g; s/"/\\"/g; s/\t/\\t/g; s/\r/\\r/g' | awk '{ printf "%s%s", separator, $0; separator = "\\n" }'
    printf '"'
}

# add LIST TEXT: appends a JSON string to the list in a variable.
add() {
    eval "list=\$$1"
    # shellcheck disable=SC2154 # the line above sets it
    list=${list:+$list, }$(json "$2")
    eval "$1=\$list"
}

# A name of a registry's image, complete: docker.io/library/redis:7. Neither a path nor coracle's prefixes (oci:, oci-archive:) are.
image_name() {
    rest=${1#docker://}
    case $rest in
        '' | [!a-z0-9]* | *[!A-Za-z0-9._/:@-]* | *..* | *:/* | *//* | */ | */.* | */-* | */_*) return 1 ;;
    esac
    first=${rest%%/*}
    case $first in
        "$rest") rest=docker.io/library/$rest ;;
        *.* | *:* | localhost) ;;
        *) rest=docker.io/$rest ;;
    esac
    printf '%s' "$rest"
}

# image: adds CORACLE_IMAGE. The name without tag and digest must match one of IMAGES.
image() {
    complete=$(image_name "$1") || fail "$name: CORACLE_IMAGE '$1': not the name of an image in a registry"
    repository=${complete%%@*}
    last=${repository##*/}
    case $last in *:*) repository=${repository%:*} ;; esac
    allowed=
    set -f
    for pattern in $IMAGES; do
        # shellcheck disable=SC2254 # a pattern
        case $repository in $pattern) allowed=1 ;; esac
    done
    set +f
    [ "$allowed" ] || fail "$name: CORACLE_IMAGE '$1': $repository is not allowed by IMAGES of coraclerc ($IMAGES)"
    members="$members, \"image\": $(json "docker://$complete")"
}

# disk_path DISK_ID: the VM's disk, a file in a datastore, whatever its name is a link to.
disk_path() {
    link=$DATASTORES/$datastore/$id/disk.$1
    path=$(realpath -e "$link" 2> /dev/null) || fail "$name: disk.$1: $link: not there"
    base=$(realpath -e "$DATASTORES") || fail "$DATASTORES: not there"
    case $path in "$base"/*) ;; *) fail "$name: disk.$1: $path: not in $DATASTORES" ;; esac
    [ -f "$path" ] || fail "$name: disk.$1: $path: not a file"
    case $path in *,*) fail "$name: disk.$1: $path: a comma in the path is not supported" ;; esac
}

# disks: adds the DISKs; without an image the first one that is no CD is the root file system, and the CONTEXT disk is attached.
disks() {
    list_of_disks=
    i=0
    total=$(count "$vm/TEMPLATE/DISK")
    while [ $((i += 1)) -le "$total" ]; do
        disk="$vm/TEMPLATE/DISK[$i]"
        number=$(value "$disk/DISK_ID")
        is_number "$number" || fail "$name: DISK $i: DISK_ID '$number': not a number"
        for format in "$(value "$disk/DRIVER")" "$(value "$disk/FORMAT")"; do
            case $format in '' | raw) ;; *) fail "$name: disk.$number: format '$format': only raw disks are supported" ;; esac
        done
        read_only=
        case $(value "$disk/TYPE") in
            FILE | file | fs | swap | '') ;;
            CDROM | cdrom) read_only=,ro ;;
            *) fail "$name: disk.$number: TYPE '$(value "$disk/TYPE")': only files are supported" ;;
        esac
        case $(value "$disk/READONLY") in YES | yes) read_only=,ro ;; esac
        disk_path "$number"
        if [ ! "$image" ] && [ ! "$root" ] && [ ! "$read_only" ]; then
            root=$path
        else
            add list_of_disks "path=$path,serial=disk.$number$read_only"
        fi
    done
    if [ ! "$image" ]; then
        [ "$root" ] || fail "$name: neither CORACLE_IMAGE nor a DISK with a root file system"
        members="$members, \"rootfs\": $(json "$root"), \"system\": true"
        number=$(value "$vm/TEMPLATE/CONTEXT/DISK_ID")
        if is_number "$number"; then
            disk_path "$number"
            add list_of_disks "path=$path,serial=CONTEXT,ro"
        fi
    fi
    members="$members, \"disk\": [$list_of_disks]"
}

# prefix_length MASK: of a dotted netmask.
prefix_length() {
    bits=0
    ended=
    rest=$1.
    fields=0
    while [ "$rest" ]; do
        field=${rest%%.*}
        rest=${rest#*.}
        fields=$((fields + 1))
        case $field in
            255) ones=8 ;; 254) ones=7 ;; 252) ones=6 ;; 248) ones=5 ;; 240) ones=4 ;;
            224) ones=3 ;; 192) ones=2 ;; 128) ones=1 ;; 0) ones=0 ;; *) return 1 ;;
        esac
        if [ "$ended" ] && [ "$ones" != 0 ]; then return 1; fi
        [ "$ones" = 8 ] || ended=1
        bits=$((bits + ones))
    done
    [ "$fields" = 4 ] && echo "$bits"
}

# context NAME PATTERN: sets `text` to a value of CONTEXT in which there is no character but those of the pattern.
context() {
    text=$(value "$vm/TEMPLATE/CONTEXT/$1")
    # shellcheck disable=SC2254 # a pattern
    case $text in *$2*) fail "$name: CONTEXT/$1: invalid value '$text'" ;; esac
}

# addresses NIC_ID: adds the addresses of an interface to `network`.
addresses() {
    context "ETH$1_METHOD" '[!A-Za-z]'
    method=$text
    context "ETH$1_IP" '[!0-9.]'
    case $method in
        dhcp) network=$network,ip=dhcp ;;
        skip) ;;
        *)
            if [ "$text" ]; then
                address=$text
                context "ETH$1_MASK" '[!0-9.]'
                length=$(prefix_length "${text:-255.255.255.0}") || fail "$name: CONTEXT/ETH$1_MASK: invalid netmask '$text'"
                network=$network,ip=$address/$length
                context "ETH$1_GATEWAY" '[!0-9.]'
                network=$network${text:+,gw=$text}
            fi
            ;;
    esac
    context "ETH$1_IP6" '[!0-9A-Fa-f:]'
    if [ "$text" ]; then
        address=$text
        context "ETH$1_IP6_PREFIX_LENGTH" '[!0-9]'
        network=$network,ip=$address/${text:-64}
        context "ETH$1_IP6_GATEWAY" '[!0-9A-Fa-f:]'
        network=$network${text:+,gw=$text}
    fi
    context "ETH$1_MTU" '[!0-9]'
    network=$network${text:+,mtu=$text}
    context "ETH$1_DNS" '[!0-9A-Fa-f.:, ]'
    dns_servers="$dns_servers $text"
    context "ETH$1_SEARCH_DOMAIN" '[!A-Za-z0-9., _-]'
    search="$search $text"
}

# nics: adds the interfaces, and lists what taps they need in $work/taps.
nics() {
    networks=
    dns_servers=
    search=
    : > "$work/taps"
    for element in NIC_ALIAS PCI; do
        [ "$(count "$vm/TEMPLATE/$element")" = 0 ] || fail "$name: $element: not supported"
    done
    i=0
    total=$(count "$vm/TEMPLATE/NIC")
    while [ $((i += 1)) -le "$total" ]; do
        nic="$vm/TEMPLATE/NIC[$i]"
        number=$(value "$nic/NIC_ID")
        is_number "$number" || fail "$name: NIC $i: NIC_ID '$number': not a number"
        tap=$(value "$nic/TARGET")
        # Another name could be an interface of the host.
        case ${tap:=$name-$number} in "$name-$number") ;; *) fail "$name: NIC $number: TARGET '$tap': expected $name-$number" ;; esac
        bridge=$(value "$nic/BRIDGE")
        case $bridge in
            '' | .* | -* | *[!A-Za-z0-9_.-]*) fail "$name: NIC $number: BRIDGE '$bridge': not an interface name" ;;
        esac
        mac=$(value "$nic/MAC")
        case $mac in
            *[!0-9A-Fa-f:]* | ?????????????????*?) fail "$name: NIC $number: MAC '$mac': not an Ethernet address" ;;
            ??:??:??:??:??:??) ;;
            *) fail "$name: NIC $number: MAC '$mac': not an Ethernet address" ;;
        esac
        network=tap=$tap,mac=$mac
        [ ! "$image" ] || addresses "$number"
        add networks "$network"
        echo "$tap $bridge" >> "$work/taps"
    done
    [ "$networks" ] || networks='"none"'
    members="$members, \"network\": [$networks]"
    [ ! "$image" ] || names
}

# names: adds name servers and search list; those of CONTEXT itself come first.
names() {
    context DNS '[!0-9A-Fa-f.:, ]'
    list_of_names=
    for word in $(echo "$text $dns_servers" | tr , ' '); do add list_of_names "$word"; done
    members="$members${list_of_names:+, \"dns\": [$list_of_names]}"
    context SEARCH_DOMAIN '[!A-Za-z0-9., _-]'
    list_of_names=
    for word in $(echo "$text $search" | tr , ' '); do add list_of_names "$word"; done
    members="$members${list_of_names:+, \"dns-search\": [$list_of_names]}"
}

# variables: each variable of CONTEXT is one of the workload's environment. Scripts and keys are read from the CONTEXT disk.
variables() {
    for word in START_SCRIPT START_SCRIPT_BASE64 SSH_PUBLIC_KEY; do
        [ "$(value "$vm/TEMPLATE/CONTEXT/$word")" ] || continue
        number=$(value "$vm/TEMPLATE/CONTEXT/DISK_ID")
        is_number "$number" || fail "$name: CONTEXT/$word: there is no CONTEXT disk"
        disk_path "$number"
        members="$members, \"context\": $(json "$path")"
        break
    done
    variables=
    i=0
    total=$(count "$vm/TEMPLATE/CONTEXT/*")
    while [ $((i += 1)) -le "$total" ]; do
        key=$(value "name($vm/TEMPLATE/CONTEXT/*[$i])")
        case $key in [0-9]* | *[!A-Za-z0-9_]*) fail "$name: CONTEXT/$key: not the name of an environment variable" ;; esac
        add variables "$key=$(value "$vm/TEMPLATE/CONTEXT/*[$i]")"
    done
    members="$members, \"env\": [$variables]"
    context SET_HOSTNAME '[!A-Za-z0-9.-]'
    members="$members${text:+, \"hostname\": $(json "$text")}"
}

# write_document DATASTORE_ID: the configuration document, $work/machine.json.
write_document() {
    datastore=$1
    is_number "$datastore" || fail "$name: datastore '$datastore': not a number"
    image=$(value "$vm/USER_TEMPLATE/CORACLE_IMAGE")
    root=
    memory=$(value "$vm/TEMPLATE/MEMORY")
    is_number "$memory" || fail "$name: MEMORY '$memory': not a number of MiB"
    cpus=$(value "$vm/TEMPLATE/VCPU")
    is_number "${cpus:=1}" || fail "$name: VCPU '$cpus': not a number"
    members="\"version\": 1, \"name\": \"$name\", \"memory\": \"${memory}m\", \"cpus\": $cpus"
    if [ "$image" ]; then image "$image"; fi
    disks
    nics
    if [ "$image" ]; then variables; fi
    printf '{ %s }\n' "$members" > "$work/machine.json"
}

# make_taps: the taps of the document, each in its bridge. Those that are made here are removed if the action fails.
make_taps() {
    several_queues=
    [ "$cpus" = 1 ] || several_queues=multi_queue
    while read -r tap bridge; do
        [ -d "/sys/class/net/$bridge/bridge" ] || fail "$name: $bridge: not a bridge of this host"
        if [ ! -e "/sys/class/net/$tap" ]; then
            # shellcheck disable=SC2086 # words
            $SUDO ip tuntap add dev "$tap" mode tap user "$(id -u)" $several_queues 2> /dev/null || fail "$name: $tap: the tap cannot be made"
            taps="$taps $tap"
        fi
        # shellcheck disable=SC2086 # words
        $SUDO ip link set dev "$tap" master "$bridge" up 2> /dev/null || fail "$name: $tap: cannot join the bridge $bridge"
    done < "$work/taps"
}

# start_machine: makes it, and returns once its workload is ready. What an earlier one of the name left is removed.
start_machine() {
    make_taps
    if exists; then run rm "$name"; fi
    run run -d --config "$work/machine.json"
    taps=
}

# SPDX-License-Identifier: Apache-2.0 OR MIT
# An application on a language runtime, as people build them: the runtime in one layer, the application in a second, and a
# third that corrects both. Between them they hold what the layers of images can hold: symbolic and hard links, a file
# capability, whiteouts of a file and of a directory, an opaque directory.

debian_tree "$work/python.tar" "$PWD/runtime.sh" python3 busybox-static
layer "$work/python.tar"

# The application: owned by its user; one file under two names.
tree=$work/python
mkdir -p "$tree/srv/app/notes" "$tree/srv/app/cache"
cp app/where.py app/primes.py "$tree/srv/app/"
ln -s where.py "$tree/srv/app/main.py"
ln "$tree/srv/app/primes.py" "$tree/srv/app/numbers.py"
echo 'replaced by the next layer' > "$tree/srv/app/notes/VERSION"
echo 'hidden by the next layer' > "$tree/srv/app/cache/old"
chmod -R u=rwX,go=rX "$tree"

# archive FILE TREE PATH...: the same bytes for the same tree. /srv is root's, the rest the application's.
archive() {
    archived=$1 from=$2
    shift 2
    owned="--numeric-owner --format=pax --pax-option=delete=atime,delete=ctime --sort=name --mtime=@$SOURCE_DATE_EPOCH"
    # shellcheck disable=SC2086
    tar -C "$from" $owned --owner=0 --group=0 --no-recursion -cf "$archived" srv
    # shellcheck disable=SC2086
    tar -C "$from" $owned --owner=1000 --group=1000 -rf "$archived" "$@"
}
archive "$work/application.tar" "$tree" srv/app
layer "$work/application.tar"

# The correction: a file is replaced, one is deleted, one directory is deleted, one is emptied and filled anew.
tree=$work/correction
mkdir -p "$tree/srv/app/notes" "$tree/srv/app/cache" "$tree/usr/share"
echo '2' > "$tree/srv/app/notes/VERSION"
: > "$tree/srv/app/cache/.wh..wh..opq"
echo 'new' > "$tree/srv/app/cache/new"
: > "$tree/usr/share/.wh.only-for-building"
: > "$tree/.wh.build.log"
chmod -R u=rwX,go=rX "$tree"
archive "$work/correction.tar" "$tree" srv/app
# shellcheck disable=SC2086
tar -C "$tree" $owned --owner=0 --group=0 -rf "$work/correction.tar" usr/share/.wh.only-for-building .wh.build.log
layer "$work/correction.tar"

configure --config.entrypoint python3 --config.cmd /srv/app/main.py --config.user app --config.workingdir /srv/app \
    --config.env PATH=/usr/local/bin:/usr/bin:/bin --config.env LANG=C.UTF-8 --config.env GREETING='hello from the image'

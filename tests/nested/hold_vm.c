// SPDX-License-Identifier: Apache-2.0 OR MIT
// Holds a VM with one vCPU that never runs. KVM switches static keys when the first VM comes and the last one goes, and when
// the last vCPU enables its APIC; one of them is in the scheduler. With QEMU's multi-threaded TCG a processor may meet the
// breakpoint of such a change after the change is done, and the kernel dies of it. While this VM exists the keys do not change.
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

int main(void) {
    int kvm = open("/dev/kvm", O_RDWR);
    int vm = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0);
    if (vm < 0 || ioctl(vm, KVM_CREATE_IRQCHIP, 0) < 0 || ioctl(vm, KVM_CREATE_VCPU, 0) < 0) {
        perror("hold_vm");
        return 1;
    }
    if (daemon(1, 1) < 0)
        return 1;
    for (;;)
        pause();
}

#!/usr/bin/perl
package Readings;

use strict;
use warnings;
use List::Util qw(sum max);

=pod

Reads the readings of sensors, one C<name,value> on each line.

=cut

my $limit = 100;
my @columns = qw(sensor value);

# Lines that cannot be read are counted and left out.
sub read_all {
    my ($path) = @_;
    my %readings;
    my $dropped = 0;
    open(my $file, '<', $path) or die "cannot open $path: $!";
    while (my $line = <$file>) {
        chomp $line;
        next if $line =~ /^\s*#/;
        my ($sensor, $value) = split(/,/, $line, 2);
        if (!defined $value || $value !~ /^-?[\d.]+$/) {
            $dropped++;
        } else {
            push @{ $readings{$sensor} }, $value;
        }
    }
    close($file);
    return (\%readings, $dropped);
}

sub means {
    my ($readings, %options) = @_;
    my $offset = $options{offset} ? $options{offset} : 0;
    my %means;
    for my $sensor (sort keys %$readings) {
        my @values = map { $_ - $offset } grep { $_ <= $limit } @{ $readings->{$sensor} };
        $means{$sensor} = @values ? sum(@values) / scalar(@values) : undef;
    }
    return \%means;
}

my $result = eval {
    my ($readings, $dropped) = read_all($ARGV[0]);
    print STDERR "$dropped lines left out\n" if $dropped;
    means($readings, offset => 0.5);
};
if ($@) {
    warn "no report: $@";
    exit(1);
}
foreach my $sensor (sort keys %$result) {
    printf("%-10s %6.2f\n", $sensor, $result->{$sensor} // 0);
}

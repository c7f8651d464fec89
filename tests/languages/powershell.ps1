# Removes old builds from a folder and reports what is left.
param(
    [Parameter(Mandatory = $true)]
    [string] $Folder,
    [int] $Keep = 3
)

enum Outcome {
    Kept
    Removed
    Locked
}

class Build {
    [string] $Name
    [long] $Bytes

    Build([string] $name, [long] $bytes) {
        $this.Name = $name
        $this.Bytes = $bytes
    }

    [string] Describe() {
        $megabytes = [math]::Round($this.Bytes / 1048576, 1)
        $text = "$($this.Name): $megabytes MB"
        return $text
    }
}

# Newest first; a build without a log is not finished.
function Get-Build {
    param([string] $Path)
    $found = @()
    foreach ($item in Get-ChildItem -Path $Path -Directory) {
        if (Test-Path (Join-Path $item.FullName 'build.log')) {
            $size = (Get-ChildItem $item.FullName -Recurse | Measure-Object Length -Sum).Sum
            $found += [Build]::new($item.Name, $size)
        }
    }
    return $found | Sort-Object Name -Descending
}

function Remove-OldBuild($Builds, $Keep) {
    $report = @{ Kept = 0; Removed = 0; Locked = 0 }
    for ($i = 0; $i -lt $Builds.Count; $i++) {
        $outcome = 'Kept'
        if ($i -ge $Keep) {
            try {
                Remove-Item (Join-Path $Folder $Builds[$i].Name) -Recurse -ErrorAction Stop
                $outcome = 'Removed'
            } catch [System.IO.IOException] {
                $outcome = 'Locked'
            } finally {
                Write-Verbose "looked at $($Builds[$i].Name)"
            }
        }
        $report[$outcome]++
    }
    return $report
}

$report = Remove-OldBuild (Get-Build $Folder) $Keep
switch ($report.Locked) {
    0 { Write-Host 'all removed' }
    default { Write-Warning "$($report.Locked) builds are in use" }
}
$attempt = 0
while ($report.Locked -gt 0 -and $attempt -lt 3) {
    Start-Sleep -Seconds 5
    $attempt++
    $report = Remove-OldBuild (Get-Build $Folder) $Keep
}

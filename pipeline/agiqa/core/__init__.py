"""What every floor uses: errors, settings, files of others, progress, processes, memory."""
